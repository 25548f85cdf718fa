"""Many idle sandboxes of different functions: they count with what they hold, and each still answers."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from journeys.running import RunningNode, running, together, zipped

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="lean nodes of the journeys are root's")

FUNCTIONS = 32
BUDGET_MB = 512  # the limits of four
AT_ONCE = (
    2  # beside those that rest there is room for them, so that nobody waits and no other is ended for him
)
CODE = """
calls = 0

def lambda_handler(event, context):
    global calls
    calls += 1
    return [context.function_name, calls]
"""
GROWING = """
import threading
import time

kept = []

def grow():
    time.sleep(0.5)
    kept.append(b"x" * (100 << 20))

def lambda_handler(event, context):
    threading.Thread(target=grow, daemon=True).start()
"""


def pool(node: RunningNode) -> dict[str, int]:
    numbers: dict[str, int] = node.ask("GET", "/stats").json["data"]["pool"]
    return numbers


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """What is started meanwhile may have no more, unless it asks for as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def prepare(node: RunningNode, names: list[str]) -> None:
    """Functions of one package under so many names: they share no sandbox."""
    content = zipped("", {"main.py": CODE}, {"environment": "python3", "reuse": "process"})
    for name in names:
        node.raw_package(name, content)


def call_all(node: RunningNode, names: list[str], calls: int) -> None:
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        answers = together(*(partial(node.execute, name) for name in some))
        assert [one.json["Result"] for one in answers] == [[name, calls] for name in some]


@pytest.mark.timeout(180)
def test_many_times_more_idle_sandboxes_stay_than_their_limits_would_allow_and_each_answers() -> None:
    names = [f"f{number}" for number in range(FUNCTIONS)]
    memory = {"STOKER_MEMORY_MB": str(BUDGET_MB), "STOKER_DEFAULT_MEMORY_MB": "128"}
    with ExitStack() as stack:
        with few_descriptors(256):
            node = stack.enter_context(running("lean", **memory))
        prepare(node, names)
        call_all(node, names, calls=1)
        call_all(node, names, calls=2)
        node.wait_until_quiet()
        assert pool(node)["idle"] == FUNCTIONS
        assert pool(node)["committed_mb"] <= BUDGET_MB
        answers = together(*(partial(node.execute, name) for name in names))
        assert [answer.json["Result"][0] for answer in answers] == names
        node.wait_until_quiet()
        assert pool(node)["committed_mb"] <= BUDGET_MB


def test_an_idle_function_that_grows_by_itself_gives_way_to_who_is_called() -> None:
    with running("lean", STOKER_MEMORY_MB="300", STOKER_DEFAULT_MEMORY_MB="128") as node:
        assert node.deploy("growing", GROWING, handler="main.lambda_handler").status == 201
        prepare(node, ["a", "b", "c"])
        assert node.call("growing").status == 200
        call_all(node, ["a", "b", "c"], calls=1)  # those that were idle have been measured by now
        node.wait_for_pool(lambda there: there["idle"] < 4 or there["committed_mb"] > 200)
        call_all(node, ["a", "b", "c"], calls=2)
        assert pool(node)["committed_mb"] <= 300
