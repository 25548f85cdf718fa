"""From series to the one table: goal, measured, ratio, met or not."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.table import Table

Series = dict[str, list[float]]
"""The run medians of each number, by its name: `s3_us`."""
UNITS = {"rate": "/s", "us": " µs", "ms": " ms"}


class Goal(msgspec.Struct, frozen=True):
    """One line of the table."""

    id: str
    metric: str
    goal: str
    needs: tuple[str, ...]
    measured: Callable[[Series], str]
    ratio: Callable[[Series], float]
    limit: float
    at_least: bool = False

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit


class Row(msgspec.Struct, frozen=True):
    """What became of a goal."""

    id: str
    metric: str
    goal: str
    measured: str
    ratio: float | None
    verdict: str


def median(series: Series, name: str) -> float:
    return statistics.median(series[name])


def spread(series: Series, name: str) -> str:
    """Median of the run medians, with the lowest and the highest."""
    values = series[name]
    unit = name.rpartition("_")[2]
    middle, low, high = (_number(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle}{UNITS[unit]} [{low}–{high}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _of(name: str) -> Callable[[Series], str]:
    return lambda series: spread(series, name)


def _ratio(name: str, to: str) -> Callable[[Series], float]:
    return lambda series: median(series, name) / median(series, to)


def _above_null(name: str, to: str) -> Callable[[Series], float]:
    """What a cold call costs beyond a null call, in units of a probe."""
    return lambda series: (median(series, name) - median(series, "h0_us")) / median(series, to)


def _below(probe: str, name: str) -> Callable[[Series], float]:
    """How many times faster than a probe a cold call is."""
    return lambda series: median(series, probe) / (median(series, name) - median(series, "h0_us"))


def _of_allowed(name: str, allowed: float) -> Callable[[Series], float]:
    """For the goals that are times of a clock."""
    return lambda series: median(series, name) / allowed


def _longest(name: str, allowed: float) -> Callable[[Series], float]:
    """The same, of the worst of all rounds."""
    return lambda series: max(series[name]) / allowed


GOALS = (
    Goal("S1", "cold, from a spare: p50 − H0", "≤ 1.0 × F0", ("s1_us", "h0_us", "f0_us"),
         _of("s1_us"), _above_null("s1_us", "f0_us"), 1.0),
    Goal("S1", "cold, back to back: p50 − H0", "≤ 2.0 × F0", ("s1_busy_us", "h0_us", "f0_us"),
         _of("s1_busy_us"), _above_null("s1_busy_us", "f0_us"), 2.0),
    Goal("S1", "cold, from a spare: p99", "≤ 4 × F0 p99", ("s1_p99_us", "f0_p99_us"),
         _of("s1_p99_us"), _ratio("s1_p99_us", "f0_p99_us"), 4.0),
    Goal("S1", "cold, against docker run", "≥ 200 × faster", ("dr_us", "s1_us", "h0_us"),
         _of("dr_us"), _below("dr_us", "s1_us"), 200.0, at_least=True),
    Goal("S3", "warm, serial, 100 bytes: p50", "≤ 1.8 × H0", ("s3_us", "h0_us"),
         _of("s3_us"), _ratio("s3_us", "h0_us"), 1.8),
    Goal("S3", "warm, serial, 100 bytes: p99", "≤ 2.5 × H0 p99", ("s3_p99_us", "h0_p99_us"),
         _of("s3_p99_us"), _ratio("s3_p99_us", "h0_p99_us"), 2.5),
    Goal("S4", "warm rate, 32 connections", "≥ 1.0 × RU", ("s4_rate", "ru_rate"),
         _of("s4_rate"), _ratio("s4_rate", "ru_rate"), 1.0, at_least=True),
    Goal("S4", "warm rate, 32 connections", "≥ 0.45 × R0", ("s4_rate", "r0_rate"),
         _of("s4_rate"), _ratio("s4_rate", "r0_rate"), 0.45, at_least=True),
    Goal("S4", "warm, 32 connections: p99", "≤ 10 × p50", ("s4_p99_us", "s4_us"),
         _of("s4_p99_us"), _ratio("s4_p99_us", "s4_us"), 10.0),
    Goal("S13", "stoker --help", "≤ 200 ms", ("help_ms",),
         _of("help_ms"), _of_allowed("help_ms", 200.0), 1.0),
    Goal("S13", "stoker start to first answer", "≤ 1000 ms", ("start_ms",),
         _of("start_ms"), _of_allowed("start_ms", 1000.0), 1.0),
    Goal("S14", "CPU of a warm call, all processes", "≤ 2.2 × null call", ("cpu_call_us", "cpu_null_us"),
         _of("cpu_call_us"), _ratio("cpu_call_us", "cpu_null_us"), 2.2),
    Goal("S15", "back after kill -9 of the helper: p50", "≤ 2000 ms", ("back_helper_ms",),
         _of("back_helper_ms"), _of_allowed("back_helper_ms", 2000.0), 1.0),
    Goal("S15", "back after kill -9 of the helper: longest", "≤ 2000 ms", ("back_helper_max_ms",),
         _of("back_helper_max_ms"), _longest("back_helper_max_ms", 2000.0), 1.0),
    Goal("S15", "back after kill -9 of the node: p50", "≤ 2000 ms", ("back_node_ms",),
         _of("back_node_ms"), _of_allowed("back_node_ms", 2000.0), 1.0),
    Goal("S15", "back after kill -9 of the node: longest", "≤ 2000 ms", ("back_node_max_ms",),
         _of("back_node_max_ms"), _longest("back_node_max_ms", 2000.0), 1.0),
)  # fmt: skip

PROBES = {
    "F0": ("f0_us", "bare fork of the zygote's image, one byte back"),
    "FW": ("fw_rate", "fork, exit and wait, one processor"),
    "P0": ("p0_us", "interpreter start, -I -S -c pass"),
    "H0": ("h0_us", "null call, one connection"),
    "R0": ("r0_rate", "null rate, 32 connections"),
    "X0": ("x0_us", "bare relay to another process and back, one connection"),
    "RU": ("ru_rate", "plain uvicorn echo, 32 connections"),
    "DR": ("dr_us", "docker run of the same no-op"),
}


def rows(series: Series, missing: dict[str, str]) -> list[Row]:
    """Every goal; `missing` tells why a number is not there."""
    return [_row(goal, series, missing) for goal in GOALS]


def _row(goal: Goal, series: Series, missing: dict[str, str]) -> Row:
    absent = next((name for name in goal.needs if not series.get(name)), None)
    if absent is not None:
        reason = f"not measured: {missing.get(absent, f'no {absent}')}"
        return Row(goal.id, goal.metric, goal.goal, "–", None, reason)
    ratio = goal.ratio(series)
    verdict = "met" if goal.is_met(ratio) else "not met"
    return Row(goal.id, goal.metric, goal.goal, goal.measured(series), round(ratio, 3), verdict)


def show(console: Console, series: Series, goals: list[Row], missing: dict[str, str]) -> None:
    probes = Table(
        "probe", "what", "median of run medians [lowest–highest]", title="Probes", title_justify="left"
    )
    for name, (key, what) in PROBES.items():
        probes.add_row(name, what, _told(series, key, missing))
    console.print(probes)
    table = Table("", "metric", "goal", "measured", "ratio", "", title="Goals", title_justify="left")
    for row in goals:
        table.add_row(row.id, row.metric, row.goal, row.measured, _figure(row.ratio), row.verdict)
    console.print(table)


def markdown(series: Series, goals: list[Row], missing: dict[str, str], circumstances: list[str]) -> str:
    """The same as a page: what `docs/speed.md` holds of the reference run."""
    lines = ["| probe | what | median of run medians [lowest–highest] |", "| --- | --- | --- |"]
    for name, (key, what) in PROBES.items():
        lines.append(f"| {name} | {what} | {_told(series, key, missing)} |")
    lines += ["", "| goal | metric | allowed | measured | ratio | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in goals:
        cells = (row.id, row.metric, row.goal, row.measured, _figure(row.ratio), row.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"* {line}" for line in circumstances), ""])


def wall_rows(costs: Series) -> list[tuple[str, str]]:
    """What each wall costs a sandbox, and all together of what is put up inside."""
    rows = [(name, _microseconds(values)) for name, values in costs.items()]
    inside = [values for name, values in costs.items() if not name.startswith("helper")]
    return [
        *rows,
        ("all that is put up inside", _microseconds([sum(each) for each in zip(*inside, strict=True)])),
    ]


def _microseconds(values: list[float]) -> str:
    low, high = (_number(statistics.quantiles(values, n=10)[place]) for place in (0, -1))
    return f"{_number(statistics.median(values))} µs [{low}–{high}]"


def show_walls(console: Console, rows: list[tuple[str, str]]) -> None:
    table = Table("wall", "median of all sandboxes [tenth–ninth tenth]", title="Walls", title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def walls_markdown(rows: list[tuple[str, str]]) -> str:
    lines = ["| wall | median of all sandboxes [tenth–ninth tenth] |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {cost} |" for name, cost in rows), ""])


def _told(series: Series, key: str, missing: dict[str, str]) -> str:
    return spread(series, key) if series.get(key) else f"not measured: {missing.get(key, '')}"


def _figure(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"
