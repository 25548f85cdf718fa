"""The zygotes of one launch, which follow each other.

Theory. All that is forked from one zygote has its addresses and its secret of `hash()`, which cannot be
changed under a live interpreter. So when the node says so a fresh one takes its place. It is up before it
does: nobody waits for it, and where it does not come up the old one goes on. What was frozen in a sandbox can
be continued only in others of its lineage: the one before the newest stays until the node releases it, or
until another one is that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Protocol

from stoker.sandboxes.lean.packets import Fork
from stoker.sandboxes.lean.privileged import zygotes
from stoker.sandboxes.lean.privileged.loop import Loop
from stoker.sandboxes.lean.privileged.zygotes import Nursery, Start


class Owner(zygotes.Owner, Protocol):
    """Who gave the orders. One of these comes for each `renew`."""

    def renewed(self, launch: int, former: int, lineage: int) -> None: ...
    def unrenewed(self, launch: int, text: str) -> None: ...


class Succession:
    """The newest zygote of a launch, the one before it, and its successor."""

    def __init__(
        self,
        launch: int,
        start: Start,
        filters: tuple[bytes, ...],
        loop: Loop,
        owner: Owner,
        lineages: Iterator[int],
    ) -> None:
        self._launch = launch
        self._owner = owner
        self._new = partial(Nursery, start, filters, loop, owner, lineages, self._changed)
        self._newest = self._new()
        self._former: Nursery | None = None
        self._successor: Nursery | None = None
        self._finishing: list[Nursery] = []

    def __repr__(self) -> str:
        return f"<Succession of {self._newest}, before it {self._former}, after it {self._successor}>"

    @property
    def pids(self) -> list[int]:
        return [nursery.pid for nursery in self._all()]

    def _all(self) -> list[Nursery]:
        some = (self._newest, self._former, self._successor)
        return [*(nursery for nursery in some if nursery is not None), *self._finishing]

    def start(self) -> None:
        self._newest.start()

    def order(self, number: int, fork: Fork, descriptors: tuple[int, ...], lineage: int) -> int:
        """Have a sandbox forked, of that lineage if it can be had; returns of which it is."""
        is_former = self._former is not None and self._former.lineage == lineage
        nursery = self._former if self._former is not None and is_former else self._newest
        return nursery.order(number, fork, descriptors)

    def renew(self, lineage: int) -> None:
        """Start a successor, where that is the newest; one that is still starting has had its time."""
        if lineage != self._newest.lineage:
            return
        if self._successor is not None:
            self._successor.trouble = "it was not up in time"
            self._successor.close()
        self._successor = self._new()
        self._successor.start()

    def release(self, lineage: int) -> None:
        """The one before the newest, if it is of that lineage, is not needed any more."""
        if self._former is not None and self._former.lineage == lineage:
            self._let_go()

    def close(self) -> None:
        """HOLDS: no order is under way."""
        for nursery in self._all():
            nursery.close()

    def _changed(self, nursery: Nursery) -> None:
        if nursery is self._successor and nursery.is_up:
            self._take_over(nursery)
        elif nursery is self._successor:
            self._successor = None
            self._owner.unrenewed(self._launch, nursery.trouble)
        elif nursery is self._former:
            self._former = None
        elif nursery in self._finishing:
            self._finishing.remove(nursery)

    def _take_over(self, successor: Nursery) -> None:
        self._let_go()
        former, self._newest, self._successor = self._newest, successor, None
        self._former = former if former.pid else None
        self._owner.renewed(self._launch, former.lineage, successor.lineage)

    def _let_go(self) -> None:
        former, self._former = self._former, None
        if former is not None:
            self._finishing.append(former)
            former.finish()
