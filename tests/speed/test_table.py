"""The benchmark's table says what was measured, and says so when something was not."""

from __future__ import annotations

import pytest
from bench import table

EVERYTHING = {name: [100.0, 120.0, 110.0] for goal in table.GOALS for name in goal.needs} | {"h0_us": [50.0]}


def row(goal_id: str, metric: str, series: table.Series, missing: dict[str, str] | None = None) -> table.Row:
    found = table.rows(series, missing or {})
    return next(row for row in found if row.id == goal_id and metric in row.metric + row.goal)


def test_a_warm_call_is_met_up_to_its_ratio_and_not_beyond() -> None:
    series = {**EVERYTHING, "h0_us": [100.0], "s3_us": [179.0]}
    assert row("S3", "p50", series).verdict == "met"
    assert row("S3", "p50", {**series, "s3_us": [181.0]}).verdict == "not met"


def test_a_rate_is_met_from_its_ratio_on() -> None:
    series = {**EVERYTHING, "ru_rate": [1000.0], "s4_rate": [1001.0]}
    assert row("S4", "RU", series).verdict == "met"
    assert row("S4", "RU", {**series, "s4_rate": [999.0]}).verdict == "not met"


def test_a_cold_call_is_measured_beyond_a_null_call_in_forks() -> None:
    series = {**EVERYTHING, "h0_us": [100.0], "f0_us": [400.0], "s1_us": [900.0]}
    assert row("S1", "from a spare: p50", series).ratio == 2.0


def test_the_median_of_run_medians_counts_and_not_the_mean() -> None:
    series = {**EVERYTHING, "h0_us": [100.0], "s3_us": [150.0, 150.0, 9000.0]}
    assert row("S3", "p50", series).ratio == 1.5


def test_what_was_not_measured_says_why_and_is_never_met() -> None:
    series = {name: values for name, values in EVERYTHING.items() if name != "dr_us"}
    found = row("S1", "docker", series, {"dr_us": "no dockerd here"})
    assert (found.verdict, found.ratio) == ("not measured: no dockerd here", None)


@pytest.mark.parametrize(("name", "shown"), [("h0_us", "µs"), ("r0_rate", "/s"), ("help_ms", "ms")])
def test_every_number_is_shown_with_its_unit_and_spread(name: str, shown: str) -> None:
    text = table.spread({name: [90.0, 200.0, 1500.0]}, name)
    assert text.startswith("200") and shown in text and text.endswith("[90–1,500]")


def test_every_goal_has_a_row_even_when_nothing_was_measured() -> None:
    found = table.rows({}, {})
    assert len(found) == len(table.GOALS)
    assert all(row.verdict.startswith("not measured: ") for row in found)
