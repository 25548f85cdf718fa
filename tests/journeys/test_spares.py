"""Sandboxes that wait for whoever comes: before the first call, for a burst, within the memory there is."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from journeys.running import RunningNode, running, together

NODE = "exports.handle = async () => 1;"
SLEEPER = "import time\n\ndef lambda_handler(event, context):\n    time.sleep(event)\n"
PYTHON = "def lambda_handler(event, context):\n    return 1\n"
LEAN = pytest.mark.skipif(os.geteuid() != 0, reason="lean nodes of the journeys are root's")

pytestmark = LEAN


def pool(node: RunningNode) -> dict[str, int]:
    numbers: dict[str, int] = node.ask("GET", "/stats").json["data"]["pool"]
    return numbers


def test_a_deployed_language_has_its_spares_before_the_first_call_also_after_a_restart() -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js on this machine")
    with running("lean") as node:
        assert pool(node)["spares"] == 0
        assert node.deploy("one", NODE, runtime="nodejs", handler="index.handle").status == 201
        node.wait_for_pool(lambda there: there["spares"] == 2)
        node.stop()
        node.start()
        node.wait_for_pool(lambda there: there["spares"] == 2)
        assert node.call("one").json == 1


def test_a_burst_of_different_functions_is_answered_and_leaves_spares() -> None:
    with running("lean") as node:
        names = [f"f{number}" for number in range(16)]
        for name in names:
            assert node.deploy(name, PYTHON, handler="main.lambda_handler").status == 201
        answers = together(*(partial(node.call, name) for name in names))
        assert {answer.status for answer in answers} == {200}
        node.wait_for_pool(lambda there: there["spares"] > 2)


def test_spares_count_in_the_memory_and_give_it_to_who_needs_it() -> None:
    with running("lean", STOKER_MEMORY_MB="260", STOKER_DEFAULT_MEMORY_MB="128") as node:
        for name in ("a", "b"):
            assert node.deploy(name, SLEEPER, handler="main.lambda_handler").status == 201
        with ThreadPoolExecutor() as callers:
            at_work = callers.submit(node.call, "a", 3)
            node.wait_for_pool(lambda there: there["busy"] == 1 and there["spares"] == 2)
            assert pool(node)["committed_mb"] == 128 + 8
            assert node.call("b", 0.01).status == 200
            node.wait_for_pool(lambda there: there["idle"] == 1 and there["spares"] == 1)
            assert pool(node)["committed_mb"] == 256 + 4
            assert at_work.result().status == 200


def test_where_no_spares_are_wanted_there_are_none() -> None:
    with running("lean", STOKER_SPARES="0") as node:
        assert node.deploy("a", PYTHON, handler="main.lambda_handler").status == 201
        assert node.call("a").status == 200
        assert pool(node)["spares"] == 0
