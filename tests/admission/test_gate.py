"""The gate: caps, exactly-once returns, draining (invariant 2)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.admission import Gate, Ticket
from stoker.admission.gate import FAIR, LONGEST_RETRY_S, SAID_S
from stoker.errors import Draining, TooBusy


async def test_a_full_node_refuses_with_a_time_to_come_back() -> None:
    gate = Gate(max_calls=1, max_calls_per_function=1)
    gate.admit("front/a", 0.0)
    with pytest.raises(TooBusy, match="1 calls are inside") as refusal:
        gate.admit("front/b", 0.0)
    assert refusal.value.retry_after_s >= 1


async def test_one_function_cannot_take_every_place() -> None:
    gate = Gate(max_calls=10, max_calls_per_function=1)
    gate.admit("front/a", 0.0)
    with pytest.raises(TooBusy, match="front/a"):
        gate.admit("front/a", 0.0)
    gate.admit("front/b", 0.0)


def flood(gate: Gate, function: str, now: float = 0.0) -> list[Ticket]:
    """As many calls of one function as are let in."""
    tickets = []
    while True:
        try:
            tickets.append(gate.admit(function, now))
        except TooBusy:
            return tickets


async def test_a_flood_of_one_function_leaves_places_for_one_that_comes_new() -> None:
    gate = Gate(max_calls=1000, max_calls_per_function=1000)
    assert len(flood(gate, "front/a")) == 800, "four times as many as are left"
    assert len(flood(gate, "front/b")) == 160
    gate.admit("front/new", 0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=200, max_size=200))
def test_functions_that_all_flood_come_to_have_equally_many_inside(shares: list[float]) -> None:
    gate = Gate(max_calls=1000, max_calls_per_function=1000)
    inside = {f"front/{number}": list[Ticket]() for number in range(5)}
    for turn, share in enumerate(shares):
        name = f"front/{turn % 5}"
        for ticket in inside[name][: int(len(inside[name]) * share)]:
            ticket.give_back()
        inside[name] = [ticket for ticket in inside[name] if ticket.is_out] + flood(gate, name)
    counts = sorted(map(len, inside.values()))
    assert counts[0] >= 0.8 * counts[-1]


@pytest.mark.parametrize(("ended", "retry_s"), [(50, 1), (10, 5), (1, 50), (0, LONGEST_RETRY_S)])
async def test_who_is_turned_away_is_told_how_long_those_inside_will_take(ended: int, retry_s: int) -> None:
    gate = Gate(max_calls=1000, max_calls_per_function=50)
    tickets = flood(gate, "front/a")
    for _ in range(ended):
        tickets.pop().give_back()
        tickets.append(gate.admit("front/a", 0.5))
    with pytest.raises(TooBusy, match=f"try again in {retry_s} s") as refusal:
        gate.admit("front/a", 1.0)
    assert refusal.value.retry_after_s == retry_s


async def test_all_who_are_turned_away_in_a_few_milliseconds_are_told_the_same_by_one_error() -> None:
    gate = Gate(max_calls=100, max_calls_per_function=1)
    gate.admit("front/a", 0.0)
    told = []
    for now in (0.0, SAID_S / 2, SAID_S):
        with pytest.raises(TooBusy) as refusal:
            gate.admit("front/a", now)
        told.append(refusal.value)
    assert told[0] is told[1] is not told[2]
    depth = len(refusal.traceback)
    for _ in range(3):
        with pytest.raises(TooBusy) as refusal:
            gate.admit("front/a", SAID_S)
    assert len(refusal.traceback) == depth, "it does not hold the frames of those who were told before"


async def test_a_ticket_given_back_twice_counts_once() -> None:
    gate = Gate(max_calls=2, max_calls_per_function=2)
    ticket, _ = gate.admit("front/a", 0.0), gate.admit("front/a", 0.0)
    ticket.give_back()
    ticket.give_back()
    assert gate.inside == 1


async def test_a_draining_gate_lets_nobody_in_and_is_drained_when_the_last_is_out() -> None:
    gate = Gate(max_calls=2, max_calls_per_function=2)
    ticket = gate.admit("front/a", 0.0)
    gate.drain()
    with pytest.raises(Draining):
        gate.admit("front/b", 0.0)
    drained = asyncio.ensure_future(gate.drained())
    await asyncio.sleep(0)
    assert not drained.done()
    ticket.give_back()
    await drained


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_tickets_out_never_exceed_the_caps(history: list[tuple[str, bool]]) -> None:
    gate, out = Gate(max_calls=5, max_calls_per_function=2), list[tuple[Ticket, str]]()
    for function, comes in history:
        if comes:
            try:
                out.append((gate.admit(function, 0.0), function))
            except TooBusy:
                mine = sum(other == function for _, other in out)
                assert len(out) == 5 or mine == 2 or mine >= FAIR * (5 - len(out))
        elif out:
            out.pop(0)[0].give_back()
        assert gate.inside == len(out) <= 5
