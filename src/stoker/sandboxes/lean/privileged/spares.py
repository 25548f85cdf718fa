"""Spares: sandboxes walled in and started before anybody asks for them, waiting for a function's code.

How many of each kind there are to be is the node's to say (`lean.demand`). They are made when the helper
has had nothing else to do for a moment, or at once where fewer than half of them are left; never before
what has been asked for, and never more at a time than there are processors, until their programs have said
their first word. One that is still being made is given away too: what is left of it is less than all.
"""

from __future__ import annotations

from itertools import chain

from stoker.sandboxes.lean.packets import EGRESS, HAS_CODE, SPARE, SPARES, SPARES_BODY, Make, pack
from stoker.sandboxes.lean.privileged.sandbox import Sandbox

FIRST_NUMBER = 1 << 63


class Shelf:
    """The spares of one kind."""

    def __init__(self, pattern: Make) -> None:
        self.pattern = pattern
        self.wanted = self.word = 0
        """As the node has said last, and the number of that word."""
        self.ready: list[Sandbox] = []
        self.under_way: list[Sandbox] = []
        self.held = 0
        """Those that are being ended included."""
        self.is_left_alone = False
        """One has ended by itself: none are made until somebody asks for one."""
        self.took_us = 0
        """What making the last one took, until that was told."""

    def take_time(self) -> int:
        took_us, self.took_us = self.took_us, 0
        return took_us

    @property
    def missing(self) -> int:
        """Those being ended have their place until they have gone: the node counts what they hold."""
        return 0 if self.is_left_alone else self.wanted - self.held


class Spares:
    """Which spares there are, and which there should be. Makes none itself."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._shelves: dict[int, Shelf] = {}
        self._newest: dict[int, int] = {}
        """By launch, the lineage that took the place of an older one."""
        self._number = FIRST_NUMBER

    def __repr__(self) -> str:
        return f"<Spares {[(shelf.held, shelf.wanted) for shelf in self._shelves.values()]}>"

    @property
    def are_wanted(self) -> bool:
        return any(shelf.wanted for shelf in self._shelves.values())

    def want(self, kind: int, number: int, word: int, pattern: Make) -> list[Sandbox]:
        """From now on so many of that kind; to be ended: those that are too many, or do not fit it."""
        shelf = self._shelves.setdefault(kind, Shelf(pattern))
        kept = number if _is_alike(shelf.pattern, pattern) else 0
        shelf.pattern, shelf.wanted, shelf.word, shelf.is_left_alone = pattern, number, word, False
        odd = [*shelf.ready, *shelf.under_way][kept:]
        shelf.ready = [spare for spare in shelf.ready if spare not in odd]
        shelf.under_way = [spare for spare in shelf.under_way if spare not in odd]
        return odd

    def take(self, order: Make) -> Sandbox | None:
        """One that can become what is ordered: the first that is ready, else the first that is begun."""
        if order.flags & ~(HAS_CODE | EGRESS):
            return None
        for shelf in self._shelves.values():
            if _is_alike(shelf.pattern, order):
                shelf.is_left_alone = False
                for spare in chain(shelf.ready, shelf.under_way):
                    is_akin = order.lineage in (0, spare.lineage)
                    if spare.pid and not spare.trouble and is_akin:
                        self._drop(spare)
                        return spare
        return None

    def next(self) -> tuple[int, int, Make] | None:
        """Kind, number and order of a spare to be made; None when there are enough, or enough begun."""
        if sum(len(shelf.under_way) for shelf in self._shelves.values()) >= self._at_once:
            return None
        for kind, shelf in self._shelves.items():
            if shelf.missing > 0:
                self._number += 1
                name = SPARE + b"%d" % (self._number - FIRST_NUMBER)
                return kind, self._number, shelf.pattern._replace(name=name)
        return None

    def is_short(self) -> bool:
        """Whether of some kind less than half is left of what there should be."""
        return any(2 * shelf.missing > shelf.wanted for shelf in self._shelves.values())

    def renewed(self, launch: int, lineage: int) -> None:
        """Those of this launch that are of an older lineage are used up, or replaced when there is time."""
        self._newest[launch] = lineage

    def outdated(self) -> Sandbox | None:
        """One to be ended, so that another is made in its place: one after the other, and none is lacking."""
        for shelf in self._shelves.values():
            if shelf.missing <= 0 and shelf.held == len(shelf.ready):
                newest = self._newest.get(shelf.pattern.launch, 0)
                for spare in shelf.ready:
                    if spare.lineage < newest:
                        shelf.ready.remove(spare)
                        return spare
        return None

    def begun(self, kind: int, spare: Sandbox) -> None:
        spare.kind = kind
        self._shelves[kind].under_way.append(spare)
        self._shelves[kind].held += 1

    def made(self, spare: Sandbox, took_s: float) -> None:
        """It is ready, unless it is being ended."""
        shelf = self._shelves[spare.kind]
        shelf.took_us = min(int(1e6 * took_s), 2**32 - 1)
        if spare in shelf.under_way:
            shelf.under_way.remove(spare)
            shelf.ready.append(spare)

    def ended(self, spare: Sandbox) -> int:
        """Nothing of it is left; returns its kind."""
        self._shelves[spare.kind].is_left_alone |= not spare.is_destroyed
        self._drop(spare)
        return spare.kind

    def left_by(self, sandbox: Sandbox) -> tuple[int, int]:
        """How many there are of what it was one of, made or ended ones included, and what making one took."""
        shelf = self._shelves.get(sandbox.kind)
        return (0, 0) if shelf is None else (shelf.held, shelf.take_time())

    def told(self, kind: int) -> bytes:
        """For the node, where it is news. That one was made is none: those it wants are counted."""
        shelf = self._shelves[kind]
        return pack(SPARES, kind, SPARES_BODY.pack(shelf.held, shelf.take_time(), shelf.word))

    def _drop(self, spare: Sandbox) -> None:
        shelf = self._shelves[spare.kind]
        shelf.held -= 1
        for those in (shelf.ready, shelf.under_way):
            if spare in those:
                those.remove(spare)


def _is_alike(one: Make, other: Make) -> bool:
    """Memory and processor can be set at any time; what is written into mounts and rlimits cannot, and a
    network is made and joined before the walls stand."""
    return _kind(one) == _kind(other)


def _kind(order: Make) -> tuple[int, ...]:
    return order.launch, order.flags & EGRESS, order.pids, order.scratch_bytes, order.scratch_inodes
