"""The pool carries out what the plan decides, in the order in which it was decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from stoker.errors import NodeError
from stoker.pool.live import Live
from stoker.types import Limits, Reuse, Source
from test_invoke import House


class Caller:
    """Has a lease, and does something the moment it gets it."""

    def __init__(self, house: House, then: Callable[[], object] = lambda: None) -> None:
        self._house = house
        self._then = then
        self._lease = 0
        self.has_it = asyncio.Event()

    def ask(self, name: str, memory_mb: int) -> None:
        house = self._house
        function = house.shelf.here[house.shelf.put(name, limits=Limits(memory_mb=memory_mb))].function
        order = house.rooms.recipes.order(function, Path("/"), Reuse.NONE, None)
        house.pool.lease(order.need, order.recipe, self)

    def leased(self, lease: int, live: Live, source: Source, runs_at_once: bool) -> None:
        self._lease = lease
        self._then()
        self.has_it.set()

    def refused(self, error: NodeError) -> None:
        raise AssertionError(error)

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
        assert house.pool.snapshot().committed_mb == 450 + 450 + 64
        assert bounds == [125, 100, 36]
        for caller in (outer, inner):
            caller.give_back()
        await house.pool.close()
        house.deadlines.close()
