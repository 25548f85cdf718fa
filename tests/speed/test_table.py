"""The benchmark's table says what was measured, and says so when something was not."""

from __future__ import annotations

import pytest
from bench import table
from bench.client import Failed
from bench.course import chosen, measured, perform
from bench.row import Series, spread
from bench.rows import ROWS
from bench.run import Run
from rich.console import Console

GOALS = [goal for row in ROWS for goal in row.goals]
EVERYTHING = {name: [100.0, 120.0, 110.0] for goal in GOALS for name in goal.needs} | {"h0_us": [50.0]}


def line(goal_id: str, metric: str, series: Series, missing: dict[str, str] | None = None) -> table.Line:
    found = table.lines(ROWS, series, missing or {}, "lean")
    return next(one for one in found if one.id == goal_id and metric in one.metric + one.goal)


def test_a_warm_call_is_met_up_to_its_ratio_and_not_beyond() -> None:
    series = {**EVERYTHING, "h0_us": [100.0], "s3_us": [179.0]}
    assert line("S3", "p50", series).verdict == "met"
    assert line("S3", "p50", {**series, "s3_us": [181.0]}).verdict == "not met"


def test_a_rate_is_met_from_its_ratio_on() -> None:
    series = {**EVERYTHING, "ru_rate": [1000.0], "s4_rate": [1001.0]}
    assert line("S4", "RU", series).verdict == "met"
    assert line("S4", "RU", {**series, "s4_rate": [999.0]}).verdict == "not met"


def test_a_cold_call_is_measured_beyond_a_null_call_in_forks() -> None:
    series = {**EVERYTHING, "h0_us": [100.0], "f0_us": [400.0], "s1_us": [900.0]}
    assert line("S1", "from a spare: p50", series).ratio == 2.0


def test_the_median_of_run_medians_counts_and_not_the_mean() -> None:
    series = {**EVERYTHING, "h0_us": [100.0], "s3_us": [150.0, 150.0, 9000.0]}
    assert line("S3", "p50", series).ratio == 1.5


def test_what_was_not_measured_says_why_and_is_never_met() -> None:
    series = {name: values for name, values in EVERYTHING.items() if name != "dr_us"}
    found = line("S1", "docker", series, {"dr_us": "no dockerd here"})
    assert (found.verdict, found.ratio) == ("not measured: no dockerd here", None)


@pytest.mark.parametrize(
    ("name", "shown"), [("h0_us", "µs"), ("r0_rate", "/s"), ("help_ms", "ms"), ("u0_kb", "kB")]
)
def test_every_number_is_shown_with_its_unit_and_spread(name: str, shown: str) -> None:
    text = spread({name: [90.0, 200.0, 1500.0]}, name)
    assert text.startswith("200") and shown in text and text.endswith("[90–1,500]")


def test_every_goal_has_a_line_even_when_nothing_was_measured() -> None:
    found = table.lines(ROWS, {}, {}, "lean")
    assert len(found) == len(GOALS)
    assert all(one.verdict.startswith("not measured: ") for one in found)


@pytest.mark.parametrize("name", [f"S{number}" for number in (*range(1, 9), 10, 11, 13, 14, 15)])
def test_every_goal_that_the_project_has_is_in_the_table(name: str) -> None:
    assert name in {goal.id for goal in GOALS}


def test_the_goals_are_in_order_whatever_was_measured_first() -> None:
    numbers = [int(one.id.removeprefix("S")) for one in table.lines(ROWS, {}, {}, "lean")]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.id} {goal.metric} {goal.goal}")
def test_every_number_can_be_shown_and_is_measured_by_one_row(goal: object) -> None:
    for name in goal.needs:  # type: ignore[attr-defined]
        assert spread({name: [1.0, 2.0]}, name)
    assert len([row for row in ROWS if goal.needs[0] in measured(row)]) == 1  # type: ignore[attr-defined]


def test_some_goals_bring_what_they_are_compared_with_and_nothing_else() -> None:
    names = {row.name for row in chosen(ROWS, "s3")}
    assert names == {"null calls", "warm calls"}


def test_a_goal_that_there_is_not_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(Failed, match="no goal S99; there is S1, S2, "):
        chosen(ROWS, "S3,S99")


def test_the_sandbox_stands_beside_what_happens_in_it() -> None:
    assert line("S3", "p50", EVERYTHING).sandbox == "lean"
    assert line("S13", "help", EVERYTHING).sandbox == "–"


def test_a_quick_run_out_of_time_says_which_rows_it_left_out_and_never_passes_them() -> None:
    run = Run("process", Console(quiet=True), is_quick=True, began=-1000.0)
    assert run.is_late
    perform(run, [row for row in ROWS if not row.is_repeated])
    found = [one for one in table.lines(ROWS, run.series, run.missing, "process") if one.id == "S5"]
    assert {one.verdict for one in found} == {"not measured: no time was left in this quick run"}
