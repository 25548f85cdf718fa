"""Groups in which one sandbox after another is bounded: making one in each tree costs far more than that.

Only those of version 1 that keep nothing of who was in them: processes, and processor time. What they count
is set to nothing again, or where that cannot be done, as for refused forks, the group goes. Memory is never
among them: a page that one had read would stay charged to the next.
"""

from __future__ import annotations

import os

from stoker.linux.cgroups import Bounds, Group, Groups, Tree, reset_use
from stoker.linux.gauges import FORKS_REFUSED

MOST_FREE = 2
"""At a time: sandboxes that end and those that are made for them come in turn."""


class Place:
    """A group with its counters and the descriptors to join it by."""

    def __init__(self, group: Group, quota: Group) -> None:
        """Raises `OSError` and leaves nothing. `quota`: the same where shares of processors are bounded."""
        self.group = group
        self._quota = quota
        self._pids = 0
        group.make()
        try:
            self.gauges = group.gauges()
        except OSError:
            group.remove()
            raise
        try:
            self.joining = group.joining()
        except OSError:
            self.gauges.close()
            group.remove()
            raise

    def __repr__(self) -> str:
        return f"<Place {self.group!r}>"

    def bound(self, bounds: Bounds) -> None:
        """A quota is set even where it is as it was: who was here may have used up the moment's."""
        (self._quota if bounds.pids == self._pids else self.group).bound(bounds)
        self._pids = bounds.pids

    def remove(self) -> None:
        """HOLDS: every process in it has been waited for."""
        self.gauges.close()
        while self.joining:
            os.close(self.joining.pop())
        self.group.remove()


class Places:
    """Those of one node that are free."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._free: list[Place] = []
        self._number = 0

    def __repr__(self) -> str:
        return f"<Places, {len(self._free)} free>"

    def has(self, tree: Tree) -> bool:
        """Whether groups of that tree are used again."""
        return tree.version == 1 and "memory" not in tree.controllers

    def others(self, name: str) -> Group:
        """A group of that name, in the trees whose groups are not used again."""
        return self._groups.group(name, tuple(tree for tree in self._groups.trees if not self.has(tree)))

    def take(self) -> Place:
        """One with nobody in it that counts from nothing. Raises `OSError`."""
        while self._free:
            place = self._free.pop()
            try:
                reset_use(place.group)
                return place
            except OSError:
                place.remove()
        self._number += 1
        name = f"Place-{self._number}"
        trees = tuple(tree for tree in self._groups.trees if self.has(tree))
        quota = tuple(tree for tree in trees if "cpu" in tree.controllers)
        return Place(self._groups.group(name, trees), self._groups.group(name, quota))

    def give_back(self, place: Place, may_be_read: bool) -> None:
        """HOLDS: every process in it has been waited for. `may_be_read`: of somebody else's counters yet."""
        if may_be_read or place.gauges.read(FORKS_REFUSED) or len(self._free) == MOST_FREE:
            place.remove()
        else:
            self._free.append(place)
