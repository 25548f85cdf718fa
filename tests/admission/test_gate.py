"""The gate: caps, exactly-once returns, draining (invariant 2)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.admission import Gate, Ticket
from stoker.errors import Draining, TooBusy


async def test_a_full_node_refuses_with_a_time_to_come_back() -> None:
    gate = Gate(max_calls=1, max_calls_per_function=1)
    gate.admit("front/a")
    with pytest.raises(TooBusy, match="1 calls are inside") as refusal:
        gate.admit("front/b")
    assert refusal.value.retry_after_s >= 1


async def test_one_function_cannot_take_every_place() -> None:
    gate = Gate(max_calls=10, max_calls_per_function=1)
    gate.admit("front/a")
    with pytest.raises(TooBusy, match="front/a"):
        gate.admit("front/a")
    gate.admit("front/b")


async def test_a_ticket_given_back_twice_counts_once() -> None:
    gate = Gate(max_calls=2, max_calls_per_function=2)
    ticket, _ = gate.admit("front/a"), gate.admit("front/a")
    ticket.give_back()
    ticket.give_back()
    assert gate.inside == 1


async def test_a_draining_gate_lets_nobody_in_and_is_drained_when_the_last_is_out() -> None:
    gate = Gate(max_calls=2, max_calls_per_function=2)
    ticket = gate.admit("front/a")
    gate.drain()
    with pytest.raises(Draining):
        gate.admit("front/b")
    drained = asyncio.ensure_future(gate.drained())
    await asyncio.sleep(0)
    assert not drained.done()
    ticket.give_back()
    await drained


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_tickets_out_never_exceed_the_caps(history: list[tuple[str, bool]]) -> None:
    gate, out = Gate(max_calls=5, max_calls_per_function=2), list[Ticket]()
    for function, comes in history:
        if comes:
            try:
                out.append(gate.admit(function))
            except TooBusy:
                assert len(out) == 5 or sum(one.function == function for one in out) == 2
        elif out:
            out.pop(0).give_back()
        assert gate.inside == len(out) <= 5
