"""From series to the one table: goal, measured, ratio, met or not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.table import Table

from bench.row import Goal, Row, Series, Way, number, spread

PROBE_HEADS = ("probe", "what", "median of run medians [lowest–highest]")
GOAL_HEADS = ("goal", "metric", "allowed", "measured", "CPU each", "ratio", "", "sandbox")
WAY_HEADS = ("the same no-op by", "cold", "warm, one connection", "rate, 32 connections", "isolation")
WALL_HEADS = ("wall", "median of all sandboxes [tenth–ninth tenth]")


class Line(msgspec.Struct, frozen=True):
    """What became of a goal."""

    id: str
    metric: str
    goal: str
    measured: str
    cpu: str
    ratio: float | None
    verdict: str
    sandbox: str

    @property
    def cells(self) -> tuple[str, ...]:
        figure = (
            "" if self.ratio is None else f"{self.ratio:,.0f}" if self.ratio >= 100 else f"{self.ratio:.2f}"
        )
        return (self.id, self.metric, self.goal, self.measured, self.cpu, figure, self.verdict, self.sandbox)


def lines(rows: Iterable[Row], series: Series, missing: dict[str, str], sandbox: str) -> list[Line]:
    """Every goal, in the order of their names; `missing` tells why a number is not there."""
    goals = [goal for row in rows for goal in row.goals]
    goals.sort(key=lambda goal: place(goal.id))
    return [_line(goal, series, missing, sandbox if goal.is_inside else "–") for goal in goals]


def place(goal_id: str) -> int:
    """S2 comes before S10."""
    return int(goal_id.removeprefix("S"))


def _line(goal: Goal, series: Series, missing: dict[str, str], sandbox: str) -> Line:
    absent = next((name for name in goal.needs if not series.get(name)), None)
    measured = spread(series, goal.needs[0]) if series.get(goal.needs[0]) else "–"
    if absent is not None:
        verdict = f"not measured: {missing.get(absent, f'no {absent}')}"
        return Line(goal.id, goal.metric, goal.goal, measured, "", None, verdict, sandbox)
    ratio = goal.ratio(series)
    verdict = "met" if goal.is_met(ratio) else "not met"
    cpu = spread(series, goal.cpu).partition(" [")[0] if series.get(goal.cpu) else ""
    return Line(goal.id, goal.metric, goal.goal, measured, cpu, round(ratio, 3), verdict, sandbox)


def probe_lines(rows: Iterable[Row], series: Series, missing: dict[str, str]) -> list[tuple[str, str, str]]:
    """Every probe."""
    return [
        (probe.name, probe.what, _told(series, probe.key, missing)) for row in rows for probe in row.probes
    ]


def way_lines(
    rows: Iterable[Row], series: Series, missing: dict[str, str], isolation: str
) -> list[tuple[str, ...]]:
    """Every way of running a function, side by side."""

    def told(way: Way, key: str) -> str:
        if series.get(key) or not key:
            return spread(series, key) if key else "–"
        return _told(series, way.cold, missing) if way.cold in missing else _told(series, key, missing)

    ways = [way for row in rows for way in row.ways]
    return [
        (way.name, *(told(way, key) for key in (way.cold, way.warm, way.rate)), way.isolation or isolation)
        for way in ways
    ]


def _told(series: Series, key: str, missing: dict[str, str]) -> str:
    return spread(series, key) if series.get(key) else f"not measured: {missing.get(key, f'no {key}')}"


def wall_lines(costs: Series) -> list[tuple[str, str]]:
    """What each wall costs a sandbox, and all together of what is put up inside."""
    rows = [(name, _microseconds(values)) for name, values in costs.items()]
    inside = [values for name, values in costs.items() if not name.startswith("helper")]
    together = [sum(each) for each in zip(*inside, strict=True)]
    return [*rows, ("all that is put up inside", _microseconds(together))]


def _microseconds(values: list[float]) -> str:
    low, high = (number(statistics.quantiles(values, n=10)[place]) for place in (0, -1))
    return f"{number(statistics.median(values))} µs [{low}–{high}]"


def show(console: Console, title: str, heads: Iterable[str], cells: Iterable[tuple[str, ...]]) -> None:
    table = Table(*heads, title=title, title_justify="left")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def markdown(heads: Iterable[str], cells: Iterable[tuple[str, ...]]) -> str:
    """The same for a page."""
    heads = tuple(heads)
    rows = [heads, ("---",) * len(heads), *cells]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), ""])
