"""The benchmark looks at the walls of the node that it measures, from inside."""

from __future__ import annotations

import pytest
from bench import system
from bench.client import Failed
from bench.promised import CALLS, PLACES, Seen, Watch
from bench.run import Run
from rich.console import Console


@pytest.mark.timeout(120)
def test_a_node_is_looked_at_from_every_kind_of_sandbox_before_and_after_it_is_measured() -> None:
    run = Run(system.default_sandbox(), Console(quiet=True))
    assert run.node.ask("GET", "/health")
    before = run.seen.looks
    run.close()
    assert (before, run.seen.looks) == (CALLS * len(PLACES), 2 * CALLS * len(PLACES))
    with run.own_node():
        pass
    assert run.seen.looks == 3 * CALLS * len(PLACES)
    assert run.seen.promised > 0
    assert f"walls: {run.seen.promised} of {run.seen.promised} as promised" in run.seen.told


@pytest.mark.timeout(120)
def test_a_wall_that_is_not_as_promised_fails_the_run() -> None:
    seen = Seen()
    with (
        system.running("process") as node,
        pytest.raises(Failed, match="namespaces: promised own, seen shared"),
    ):
        Watch(node, "lean", seen).look()
    assert seen.looks == 0


def test_where_nothing_was_promised_that_is_said() -> None:
    assert Seen().told == "walls: none is promised, none was looked at"
