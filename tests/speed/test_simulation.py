"""The simulation answers every call, always the same, and under a flood its plan is fair (invariant 4)."""

from __future__ import annotations

import pytest
from bench.arrivals import Arrival, Called, Trace
from bench.replay import piece
from bench.simulation import Costs, Simulation
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.pool.keeping import POLICIES
from stoker.pool.plan import HEAD_S, QUANTUM_S, Plan

FLOOD, OTHER = 0, 1
FLOOD_S = 3.0
FUNCTIONS = 12


def mixed() -> Trace:
    """Twelve functions of different sizes, called at different paces for ten minutes."""
    functions = tuple(Called(f"f{number}", 32 + 16 * number) for number in range(FUNCTIONS))
    calls = [
        Arrival(at * (number + 1) * 1.7, number, 0.01, 0.05 * number)
        for number in range(FUNCTIONS)
        for at in range(int(600 / (number + 1) / 1.7))
    ]
    return Trace(functions, tuple(sorted(calls, key=lambda one: (one.at_s, one.function))))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_call_of_a_trace_is_answered_and_a_second_run_gives_the_same(policy: str) -> None:
    first, second = (Simulation(mixed(), Plan(600, policy), Costs()).run() for _ in range(2))
    assert first == second
    assert len(first.over_ms) == first.calls == len(mixed().arrivals)
    assert first.peak_mb <= 600
    assert 0 < first.cold < first.calls


def test_a_policy_that_keeps_for_longer_starts_less_and_holds_more() -> None:
    short, long = (
        Simulation(mixed(), Plan(10_000, "fixed", keep_s), Costs()).run() for keep_s in (2.0, 60.0)
    )
    assert short.cold > long.cold
    assert short.idle_mb_s < long.idle_mb_s


def test_idle_ones_that_count_with_what_they_hold_are_kept_and_start_less_in_the_same_memory() -> None:
    by_limit, by_use = (
        Simulation(mixed(), Plan(600, "greedy_dual"), Costs(idle_share=share)).run() for share in (None, 0.25)
    )
    assert by_use.calls == by_limit.calls == len(by_use.over_ms)
    assert by_use.cold < 0.8 * by_limit.cold


def test_a_piece_of_a_trace_ends_in_its_time() -> None:
    assert all(one.at_s + one.run_s < 20 for one in piece(mixed(), 20.0).arrivals)


def flooded(places: int, run_s: float, sleep_s: float, other_mb: int, with_others: bool) -> Simulation:
    """Three times as many calls of one function as there is room for, and a call of another now and then."""
    rate = 3 * places / (run_s + sleep_s)
    flood = [Arrival(number / rate, FLOOD, run_s, sleep_s) for number in range(int(rate * FLOOD_S))]
    others = [Arrival(0.3 + number * 0.5, OTHER, run_s, 0.0) for number in range(5)] if with_others else []
    functions = (Called("flood", 100), Called("other", other_mb))
    trace = Trace(functions, tuple(sorted([*flood, *others], key=lambda one: one.at_s)))
    plan = Plan(100 * places, "greedy_dual", None, 6)
    simulation = Simulation(trace, plan, Costs(load_s=(0.001,)))
    simulation.run()
    return simulation


@settings(max_examples=25, deadline=None)
@given(
    places=st.integers(2, 12),
    run_s=st.floats(0.002, 0.1),
    sleep_s=st.floats(0.01, 0.2),
    share=st.floats(0.05, 1.0),
)
def test_in_a_flood_others_wait_no_longer_than_a_turn_and_goodput_holds(
    places: int, run_s: float, sleep_s: float, share: float
) -> None:
    other_mb = max(1, int(100 * places * share))
    fair = flooded(places, run_s, sleep_s, other_mb, with_others=True)
    turn_s = QUANTUM_S + HEAD_S + 2 * (run_s + sleep_s) + 0.1
    waits = [over_ms / 1000 for function, _, over_ms in fair.done if function == OTHER]
    assert len(waits) == 5
    assert max(waits) <= turn_s

    alone = flooded(places, run_s, sleep_s, other_mb, with_others=False)
    held_s = sum(turn_s * share for _ in waits)
    good = _ended(fair)
    assert good >= 0.8 * _ended(alone) * (1 - held_s / FLOOD_S)


def _ended(simulation: Simulation) -> int:
    return sum(ended_s <= FLOOD_S for _, ended_s, _ in simulation.done)
