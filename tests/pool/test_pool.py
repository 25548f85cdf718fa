"""The pool carries out what the plan decides, in the order in which it was decided."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from stoker.errors import NodeError
from stoker.pool.freezing import Zygote
from stoker.pool.live import Live
from stoker.types import Limits, Reuse, Source
from test_invoke import House


class Caller:
    """Has a lease, and does something the moment it gets it."""

    def __init__(self, house: House, then: Callable[[], object] = lambda: None) -> None:
        self._house = house
        self._then = then
        self._lease = 0
        self.refusal = ""
        self.has_it = asyncio.Event()

    def ask(self, name: str, memory_mb: int, version: str = "run") -> int:
        house = self._house
        limits = Limits(memory_mb=memory_mb)
        function = house.shelf.here[house.shelf.put(name, limits=limits, version=version)].function
        order = house.rooms.recipes.order(function, Path("/"), Reuse.NONE, None)
        return house.pool.lease(order.need, order.recipe, self)

    def leased(self, lease: int, live: Live, source: Source, runs_at_once: bool) -> None:
        self._lease = lease
        self._then()
        self.has_it.set()

    def refused(self, error: NodeError) -> None:
        self.refusal = str(error)
        self.has_it.set()

    def give_back(self) -> None:
        self._house.pool.give_back(self._lease, is_healthy=True)


async def test_what_is_decided_while_a_lease_is_handed_out_is_done_after_what_was_decided_before() -> None:
    bounds: list[int] = []
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        house = House(tasks, bound_spares=bounds.append)
        house.pool.set_prewarm(1, 1)
        inner = Caller(house)
        outer = Caller(house, lambda: inner.ask("other", 64))
        outer.ask("one", 450)  # once it is granted one more is started ahead, and meanwhile one for `other`
        await inner.has_it.wait()
        assert not inner.refusal
        assert house.pool.snapshot().committed_mb == 450 + 450 + 64
        assert bounds == [125, 100, 36]
        for caller in (outer, inner):
            caller.give_back()
        await house.pool.close()
        house.deadlines.close()


async def test_a_zygote_that_cannot_be_handed_on_fails_that_start_and_nothing_else() -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        house = House(tasks)
        house.pool._zygotes[0] = Zygote(file=-1, memory_mb=1, lineage=0)  # 0: what the plan calls none
        caller = Caller(house)
        caller.ask("one", 64)
        await caller.has_it.wait()
        assert "Bad file descriptor" in caller.refusal
        del house.pool._zygotes[0]
        caller = Caller(house)
        caller.ask("one", 64)
        await caller.has_it.wait()
        assert not caller.refusal
        caller.give_back()
        await house.pool.close()
        house.deadlines.close()
        assert house.pool.snapshot().committed_mb == 0


@pytest.mark.parametrize("version", ["run", "refuse"])
def test_a_start_that_nobody_wants_any_more_is_seen_through_and_gives_each_descriptor_back_once(
    version: str,
) -> None:
    """With the event loop of a node: a transport of asyncio's own closes its descriptor otherwise."""
    opened: list[int] = []

    async def open_whatever_is_free() -> None:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
            await asyncio.sleep(0)

    async def end_what_is_starting() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            house = House(tasks)
            opening = asyncio.create_task(open_whatever_is_free())
            caller = Caller(house)
            house.pool.withdraw(caller.ask("one", 64, version))
            await house.pool.close()
            opening.cancel()
            house.deadlines.close()
            assert house.pool.snapshot().committed_mb == 0

    try:
        uvloop.run(end_what_is_starting())
        for descriptor in opened:
            os.fstat(descriptor)
    finally:
        for descriptor in opened:
            os.close(descriptor)
