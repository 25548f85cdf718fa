"""Which rows a run measures, and when: the repeated ones in turn, round by round, then the others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from bench import table
from bench.client import Failed
from bench.promised import BrokenWall
from bench.row import NotMeasured, Row
from bench.run import Run

SIDE = "SIDE"
"""What stands for the table of other ways in a choice of goals."""
FAULTS = (Failed, OSError, EOFError, subprocess.SubprocessError)


def chosen(rows: tuple[Row, ...], only: str) -> tuple[Row, ...]:
    """The rows of these goals, and those that measure what they are compared with. Raises `Failed`."""
    if not only:
        return rows
    wanted = {name.strip().upper() for name in only.split(",")}
    known = {goal.id for row in rows for goal in row.goals}
    if unknown := wanted - known - {SIDE}:
        there = ", ".join([*sorted(known, key=table.place), SIDE])
        raise Failed(f"no goal {', '.join(sorted(unknown))}; there is {there}")
    shown = [_shown(row, wanted) for row in rows]
    needs = {key for row in shown for goal in row.goals for key in goal.needs}
    needs |= {key for row in shown for way in row.ways for key in way.keys}
    return tuple(less for row, less in zip(rows, shown, strict=True) if needs & measured(row))


def _shown(row: Row, wanted: set[str]) -> Row:
    """With nothing to show but what is wanted."""
    goals = tuple(goal for goal in row.goals if goal.id in wanted)
    return msgspec.structs.replace(row, goals=goals, ways=row.ways if SIDE in wanted else ())


def measured(row: Row) -> set[str]:
    """The series that a row says are its own."""
    cold = (way.cold for way in row.ways)
    return {*(probe.key for probe in row.probes), *(goal.needs[0] for goal in row.goals), *cold}


def perform(run: Run, rows: Iterable[Row]) -> None:
    """Measure everything; a row that fails is left, and its reason kept. Raises `BrokenWall`."""
    repeated = [row for row in rows if row.is_repeated]
    try:
        for number in range(1, run.rounds + 1 if repeated else 1):
            run.say(f"round {number} of {run.rounds}")
            repeated = [row for row in repeated if is_measured(run, row)]
            if run.has_rounds_enough:
                break
    finally:
        is_done(run, "the node", run.close)
    for row in rows:
        if not row.is_repeated:
            if run.is_late:
                run.lack(measured(row), "no time was left in this quick run")
                continue
            run.say(row.name)
            is_measured(run, row)


def is_measured(run: Run, row: Row) -> bool:
    """Whether it could be; its lines tell why it could not."""
    return is_done(run, row.name, partial(row.measure, run), measured(row))


def is_done(run: Run, name: str, step: Callable[[], object], lacking: Iterable[str] = ()) -> bool:
    """Whether a step came to its end; otherwise the run says why, and which series are missing for it."""
    try:
        step()
    except NotMeasured as reason:
        run.lack(lacking, str(reason))
        return False
    except BrokenWall:
        raise
    except FAULTS as error:
        run.failures.append(f"{name}: {str(error) or repr(error)}")
        run.lack(lacking, "it failed")
        return False
    return True
