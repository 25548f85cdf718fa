"""Attacks that take more than one call: what is left for the next one, and what is done in between."""

from __future__ import annotations

import threading
import time

import pytest

from hostile.arena import BUSY_SHARE, Arena
from hostile.conftest import SANDBOXES
from journeys.running import together

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]
behind_walls = pytest.mark.parametrize("field", SANDBOXES[:1], indirect=True)


@behind_walls
def test_what_one_call_leaves_no_other_finds(field: Arena) -> None:
    mine, other = field.ready("python", "10s"), field.ready("python", "1s")
    with field.watched(field.hello):
        for _ in range(3):
            assert field.call(mine, "reuse.leaves_all_it_can").json == []
            assert field.call(mine, "reuse.looks_for_what_was_left").json == []
            assert field.call(other, "reuse.looks_for_what_was_left").json == []


@behind_walls
def test_two_sandboxes_listen_on_the_same_port(field: Arena) -> None:
    name = field.ready("python", "10s")
    with field.watched(field.hello):
        answers = together(*[lambda: field.call(name, "reuse.binds_and_stays")] * 2)
        assert [answer.json for answer in answers] == [[], []]


@pytest.mark.parametrize("stream", [1, 2, 3])
def test_who_writes_while_nobody_calls_keeps_the_node_from_nothing(field: Arena, stream: int) -> None:
    name = field.ready("python", "10s", reuse="process")
    assert field.call(name, "peace.hello").status == 200
    with field.watched(field.hello):
        answer = field.call(name, "reuse.floods_while_nobody_calls", stream=stream)
        # On the channel the flood may be in front of the answer, or cut it in two.
        assert answer.status == 200 or (stream == 3 and answer.status == 500), answer
        began, used = time.monotonic(), field.cpu_s()
        threading.Event().wait(1.0)
        share = (field.cpu_s() - used) / (time.monotonic() - began)
        assert share < BUSY_SHARE, f"the node was at work for {share:.0%} of the time"
        # Of the flood that it left, the next call pays for what it is: too much output.
        field.call(name, "peace.hello")
        field.forget(name)


@pytest.mark.parametrize("attack", ["answers_for_everybody", "takes_the_permits_away"])
def test_calls_in_line_behind_a_liar_end_all_the_same(field: Arena, attack: str) -> None:
    name = field.ready("python", "3s", reuse="process")
    with field.watched(field.hello):
        for _ in range(5):
            field.call(name, "peace.hello")
        asks = [lambda: field.call(name, "peace.hello")] * 12 + [
            lambda: field.call(name, f"reuse.{attack}")
        ] * 4
        answers = together(*asks)
        assert {answer.status for answer in answers} <= {200, 500, 503, 504}
        field.forget(name)


def test_a_call_that_ends_the_server_of_all_is_told_to_all(field: Arena) -> None:
    if field.sandbox == "process":
        pytest.skip("process cannot: whoever has no walls may signal whatever is of the same user")
    name = field.ready("python", "10s", reuse="sandbox")
    with field.watched(field.hello):
        answers = together(
            *[lambda: field.call(name, "peace.work")] * 4, lambda: field.call(name, "reuse.ends_the_server")
        )
        assert answers[-1].status == 500
        assert {answer.status for answer in answers} <= {200, 500, 503}
        field.forget(name)
