"""The benchmark looks at the walls of the node that it measures, from inside."""

from __future__ import annotations

import pytest
from bench import system
from bench.course import perform
from bench.promised import PLACES, BrokenWall, Seen, Watch
from bench.row import Row
from bench.run import Run
from rich.console import Console


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_is_looked_at_from_every_kind_of_sandbox_before_and_after_it_is_measured() -> None:
    run = Run(system.default_sandbox(), Console(quiet=True), is_quick=True)
    assert run.node.ask("GET", "/health")
    before = run.seen.looks
    run.close()
    assert (before, run.seen.looks) == (len(PLACES), 2 * len(PLACES))
    with run.own_node():
        pass
    assert run.seen.looks == 2 * len(PLACES) + 1
    assert run.seen.promised > 0
    assert f"walls: {run.seen.promised} of {run.seen.promised} as promised" in run.seen.told


@pytest.mark.timeout(120)
def test_a_wall_that_is_not_as_promised_fails_the_run() -> None:
    seen = Seen()
    with (
        system.running("process") as node,
        pytest.raises(BrokenWall, match="namespaces: promised own, seen shared"),
    ):
        Watch(node, "lean", seen).look()
    assert seen.looks == 0


def test_where_nothing_was_looked_at_that_is_said() -> None:
    assert Seen().told == "walls: none was looked at"


def test_a_broken_wall_ends_the_run_and_any_other_failure_only_its_row() -> None:
    def fail(run: Run) -> None:
        raise ConnectionResetError("the node closed the connection")

    def break_a_wall(run: Run) -> None:
        raise BrokenWall("walls of a warm sandbox are not as promised")

    run = Run("process", Console(quiet=True))
    perform(run, [Row("calls", fail)])
    assert run.failures == ["calls: the node closed the connection"]
    with pytest.raises(BrokenWall):
        perform(run, [Row("calls", break_a_wall)])
