"""Spares: sandboxes walled in and started before anybody asks for them, waiting for a function's code.

How many: as many for each launch as the settings say, once it has been asked for in this life of the
node, with the bounds that were asked for last. They are made while the helper has nothing else to do,
so that under steady load, where a spare would only move its cost, none is made.
"""

from __future__ import annotations

from collections import deque
from itertools import product

from stoker.sandboxes.lean.packets import EGRESS, HAS_CODE, Make
from stoker.sandboxes.lean.privileged.sandbox import Sandbox

NAME = b"Spare-%d"  # no sandbox of the node's can have that name: it has a capital
FIRST_NUMBER = 1 << 63


class Shelf:
    """The spares of one launch, with or without a way out."""

    def __init__(self) -> None:
        self.pattern: Make | None = None
        self.ready: deque[Sandbox] = deque()
        self.under_way = 0


class Spares:
    """Which spares there are, and which there should be. Makes none itself."""

    def __init__(self, launches: int, wanted: int) -> None:
        self._shelves = {key: Shelf() for key in product(range(launches), (0, EGRESS))}
        self._wanted = wanted
        self._number = FIRST_NUMBER

    def __repr__(self) -> str:
        return f"<Spares {[len(shelf.ready) for shelf in self._shelves.values()]}>"

    def take(self, order: Make) -> Sandbox | None:
        """A spare that can become what is ordered, if there is one; and remember what is asked for."""
        if order.flags & ~(HAS_CODE | EGRESS):
            return None
        shelf = self._shelf(order)
        shelf.pattern = order._replace(flags=order.flags & EGRESS, name=b"", egress=())
        for spare in shelf.ready:
            if _fits(spare.order, order):
                shelf.ready.remove(spare)
                return spare
        return None

    def _shelf(self, order: Make) -> Shelf:
        """A network is made and joined before the walls stand: those with one are spares of their own."""
        return self._shelves[order.launch, order.flags & EGRESS]

    def next(self) -> tuple[int, Make] | None:
        """The number and order of the next spare to be made; None when there are enough."""
        for shelf in self._shelves.values():
            if shelf.pattern is not None and len(shelf.ready) + shelf.under_way < self._wanted:
                shelf.under_way += 1
                self._number += 1
                return self._number, shelf.pattern._replace(name=NAME % (self._number - FIRST_NUMBER))
        return None

    def surplus(self) -> list[Sandbox]:
        """Spares that fit nothing asked for any more; no longer ours."""
        odd = []
        for shelf in self._shelves.values():
            for spare in list(shelf.ready):
                if shelf.pattern is not None and not _fits(spare.order, shelf.pattern):
                    shelf.ready.remove(spare)
                    odd.append(spare)
        return odd

    def made(self, spare: Sandbox) -> None:
        shelf = self._shelf(spare.order)
        shelf.under_way -= 1
        shelf.ready.append(spare)

    def ended(self, spare: Sandbox) -> None:
        """One has ended. Unless we wanted that, its launch is left alone until it is asked for again."""
        shelf = self._shelf(spare.order)
        if not spare.is_destroyed:
            shelf.pattern = None
        if spare in shelf.ready:
            shelf.ready.remove(spare)
        elif not spare.is_running:
            shelf.under_way -= 1


def _fits(spare: Make, order: Make) -> bool:
    """Memory and processor can be set at any time; what is written into mounts and rlimits cannot."""
    return (spare.pids, spare.scratch_bytes, spare.scratch_inodes) == (
        order.pids,
        order.scratch_bytes,
        order.scratch_inodes,
    )
