"""The shape of everything that is measured: a row, its probes and its goals, and how ratios are made.

A row measures by adding numbers to named series. A probe shows one of them; a goal compares some. What is
needed from another row is named, so that a run of some rows knows which others it needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from bench.run import Run

Series = dict[str, list[float]]
"""One number of each round, by its name: `s3_us`. The name's end is its unit."""
Ratio = Callable[[Series], float]
UNITS = {"rate": "/s", "us": " µs", "ms": " ms", "kb": " kB", "mb": " MB", "percent": " %", "ratio": " ×"}
UNITS["count"] = ""


class NotMeasured(Exception):
    """Why this machine cannot tell; whatever needs it says so and is never met."""


class Probe(msgspec.Struct, frozen=True):
    """Something that the system is compared with, or that is only told."""

    name: str
    key: str
    """Of its series."""
    what: str


class Goal(msgspec.Struct, frozen=True):
    """One line of the table."""

    id: str
    metric: str
    goal: str
    """What is allowed, in words."""
    needs: tuple[str, ...]
    """Keys of series; the first is what is shown as measured."""
    ratio: Ratio
    limit: float
    at_least: bool = False
    cpu: str = ""
    """The key of the processor time of one operation, where it is measured."""
    is_inside: bool = True
    """Whether it is about what happens in a sandbox, whose isolation is then told beside it."""

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit


class Way(msgspec.Struct, frozen=True):
    """One way of running a function, for the table that shows them side by side."""

    name: str
    isolation: str
    """What of it there is; empty where it is the run's own."""
    cold: str
    """Keys of series; empty where there is no such thing."""
    warm: str = ""
    rate: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.cold, self.warm, self.rate) if key)


class Row(msgspec.Struct, frozen=True):
    """One measurement and what is read off it."""

    name: str
    """What progress says while it is at work."""
    measure: Callable[[Run], None]
    """Adds to the run's series. Raises `NotMeasured`, or `Failed` when the system did not do what it must."""
    probes: tuple[Probe, ...] = ()
    goals: tuple[Goal, ...] = ()
    ways: tuple[Way, ...] = ()
    is_repeated: bool = True
    """In every round, in turn with the others, on the one node; else once, when the rounds are over."""


def median(series: Series, name: str) -> float:
    return statistics.median(series[name])


def ratio(name: str, to: str) -> Ratio:
    return lambda series: median(series, name) / median(series, to)


def allowed(name: str, limit: float) -> Ratio:
    """For goals that are a time or a size: its share of what is allowed."""
    return lambda series: median(series, name) / limit


def longest(name: str, limit: float) -> Ratio:
    """The same, of the worst of all rounds."""
    return lambda series: max(series[name]) / limit


def above_null(name: str, to: str) -> Ratio:
    """What a call costs beyond a null call, in units of a probe."""
    return lambda series: (median(series, name) - median(series, "h0_us")) / median(series, to)


def times_faster(probe: str, name: str) -> Ratio:
    """How many times faster than a probe a call is, beyond a null call."""
    return lambda series: median(series, probe) / (median(series, name) - median(series, "h0_us"))


def spread(series: Series, name: str) -> str:
    """Median of all rounds, with the lowest and the highest."""
    values = series[name]
    unit = UNITS[name.rpartition("_")[2]]
    if len(values) == 1:
        return f"{number(values[0])}{unit}"
    middle, low, high = (number(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle}{unit} [{low}–{high}]"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
