"""Every sandbox of the plan with its state, and the memory that all of them hold.

Theory of resting. A sandbox at work counts with its limit, because it may take that at any moment. An idle
one takes a few megabytes, and hundreds of them would fit where their limits do not. So when room is needed,
idle ones are measured before any is ended, and *rest*: they count with what they hold and something on
top. Before a lease enters one that rests, it counts with its limit again (`rouse`), for which there must be
room like for a start; so however many wake at once, those at work never have more than the budget. Those
that rest are measured again, a few at a time: one that grew although nobody called it counts with more, or
ends where there is no room for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice

from stoker.pool.brood import Brood, Zygote, making_mb
from stoker.pool.events import (
    BoundSpares,
    DestroySandbox,
    DropZygote,
    MakeZygote,
    MeasureSandbox,
    Snapshot,
    StartSandbox,
)
from stoker.pool.groups import Entry, Group, Phase
from stoker.pool.keeping import Policy, victims

STARTING, READY, DYING = Phase.STARTING, Phase.READY, Phase.DYING
SLOW_START_S = 0.1
"""A start that takes longer does not count among those that are made at once: it waits for something."""
ON_TOP = 0.25
"""Of what it holds, and a megabyte: so much one that rests may grow by itself."""
LOOKS = 10
"""So many that rest are measured at a time, 30 µs each."""


class Stock:
    """What there is. HOLDS: committed memory, with dying sandboxes and spares, never exceeds the budget."""

    def __init__(self, budget_mb: int, starts_at_once: int, spare_mb: int, brood: Brood) -> None:
        self.budget_mb = budget_mb
        self.brood = brood
        self.entries: dict[int, Entry] = {}
        self._sandboxes_mb = 0
        self.age = 0.0
        """The rank of the last one that went to make room."""
        self._dying_mb = 0
        self._starting: dict[int, Entry] = {}
        self._resting: dict[int, Entry] = {}
        """The one measured longest ago first."""
        self._looks: set[int] = set()
        """Those of whom it was asked what they hold, and not yet told."""
        self._starts_at_once = starts_at_once
        self._last = 0
        self._spares = self._spare_mb = 0
        self._most_spare_mb = self._spare_bound_mb = spare_mb

    def __repr__(self) -> str:
        return f"<Stock of {len(self.entries)}, {self.committed_mb} of {self.budget_mb} MB>"

    @property
    def committed_mb(self) -> int:
        return self._sandboxes_mb + self.brood.committed_mb

    def start(self, group: Group, now: float, waited_for: bool) -> StartSandbox:
        self._last += 1
        entry = Entry(self._last, group, now, waited_for)
        self.entries[entry.id] = self._starting[entry.id] = group.entries[entry.id] = entry
        group.starting += entry.places
        group.committed_mb += entry.memory_mb
        group.starts.happened(now)
        self._sandboxes_mb += entry.memory_mb
        return StartSandbox(entry.id, entry.need, self.brood.use(entry, now, self.age))

    def ready(self, sandbox: int, now: float) -> Entry | None:
        """It is made; None if it is not among those being made any more."""
        entry = self._starting.pop(sandbox, None)
        if entry is not None:
            entry.phase = READY
            entry.group.started(now - entry.ready_at)
            entry.idle_since = entry.ready_at = now
            entry.group.starting -= entry.places
            entry.group.serving += not entry.is_retired
        return entry

    def retire(self, entry: Entry) -> None:
        """It serves no new lease."""
        if not entry.is_retired:
            entry.is_retired = True
            entry.group.serving -= entry.phase is READY
            if entry in entry.group.free:
                entry.group.free.remove(entry)
            entry.group.queueing.pop(entry.id, None)

    def destroy(self, entry: Entry) -> DestroySandbox:
        self.retire(entry)
        self._resting.pop(entry.id, None)
        self._looks.discard(entry.id)
        if entry.phase is STARTING:
            entry.group.starting -= entry.places
            del self._starting[entry.id]
        entry.phase = DYING
        entry.group.committed_mb -= entry.held_mb
        self._dying_mb += entry.held_mb
        return DestroySandbox(entry.id)

    def gone(self, sandbox: int) -> list[DropZygote]:
        """Nothing of it is left."""
        entry = self.entries.pop(sandbox, None)
        if entry is None:
            return []
        self._sandboxes_mb -= entry.held_mb
        self._dying_mb -= entry.held_mb
        del entry.group.entries[sandbox]
        return self.brood.left(entry)

    # Resting

    def look_at(self, entry: Entry) -> MeasureSandbox:
        entry.is_looked_at = True
        self._looks.add(entry.id)
        return MeasureSandbox(entry.id)

    def look_at_resting(self) -> list[MeasureSandbox]:
        """Measure the next few of those that rest."""
        return [self.look_at(entry) for entry in islice(self._resting.values(), LOOKS)]

    def measured(self, sandbox: int, told_mb: int | None) -> Entry | None:
        """It holds so much, as was told; the entry if it grew by itself and there is no room for that."""
        self._looks.discard(sandbox)
        entry = self.entries.get(sandbox)
        if entry is None or not entry.is_idle:
            return None
        memory_mb = entry.memory_mb if told_mb is None else told_mb
        wanted = min(entry.memory_mb, max(entry.need.least_mb, int(memory_mb * (1 + ON_TOP)) + 1))
        if memory_mb > entry.held_mb and not self.has_room(wanted - entry.held_mb):
            return entry
        if memory_mb > entry.held_mb or wanted < entry.held_mb:
            self._count(entry, wanted)
        self._resting.pop(sandbox, None)
        if entry.rests:
            self._resting[sandbox] = entry
        return None

    def rouse(self, entry: Entry) -> bool:
        """Have it count with its limit again, and be measured anew when it is idle; whether there is room."""
        if entry.rests:
            if not self.has_room(entry.memory_mb - entry.held_mb):
                return False
            self._count(entry, entry.memory_mb)
            del self._resting[entry.id]
        entry.is_looked_at = not entry.need.tells_memory
        return True

    def _count(self, entry: Entry, held_mb: int) -> None:
        more = held_mb - entry.held_mb
        entry.held_mb = held_mb
        entry.group.committed_mb += more
        self._sandboxes_mb += more

    # Room

    def can_start(self, now: float, spared: int = 0) -> bool:
        """Whether fewer than allowed are being made; `spared` starts are left for others."""
        left = self._starts_at_once - spared
        if len(self._starting) < left:
            return True
        return sum(now - entry.ready_at < SLOW_START_S for entry in self._starting.values()) < left

    def has_room(self, memory_mb: int) -> bool:
        return self.committed_mb + self._spare_mb + memory_mb <= self.budget_mb

    def missing_mb(self, group: Group) -> int:
        """What the next of the group's line lacks when everything that dies is gone, and every spare."""
        dying_mb = self._dying_mb + self.brood.dying_mb
        return self.committed_mb - dying_mb + group.lacks_mb - self.budget_mb

    def spares_changed(self, number: int, memory_mb: int) -> None:
        """HOLDS: no more memory than they were bound to last, or had then."""
        self._spares, self._spare_mb = number, memory_mb

    def bound_spares(self, wanted_mb: int) -> list[BoundSpares]:
        """What spares may have when somebody waits for so much; nothing where that is as before."""
        left_mb = self.budget_mb - self.committed_mb - wanted_mb
        bound_mb = max(0, min(self._most_spare_mb, left_mb))
        if bound_mb == self._spare_bound_mb:
            return []
        self._spare_bound_mb = bound_mb
        return [BoundSpares(bound_mb)]

    def make_room(
        self, group: Group, policy: Policy, may_end: bool
    ) -> list[DestroySandbox | DropZygote | MeasureSandbox]:
        """Measures what is idle; ends some, by the policy's rank, if only that makes room for the group."""
        actions: list[DestroySandbox | DropZygote | MeasureSandbox] = []
        if self.missing_mb(group) > 0:
            actions += self.brood.retire_unfinished()
        missing = self.missing_mb(group)
        if missing <= 0 or self._looks:
            return actions
        wanted = group.free[-1] if group.free else None
        idle = [entry for entry in self.entries.values() if entry.is_idle and entry is not wanted]
        unknown = [entry for entry in idle if not entry.is_looked_at]
        if unknown:
            return [*actions, *(self.look_at(entry) for entry in _enough(unknown, missing))]
        if may_end:
            zygotes = [one for one in self.brood.zygotes.values() if one.is_idle]
            ends: list[Entry | Zygote] = [
                *idle,
                *(one for one in zygotes if wanted not in one.users.values()),
            ]
            actions += self._end_some(ends, missing, policy)
        return actions

    def _end_some(
        self, idle: list[Entry | Zygote], missing_mb: int, policy: Policy
    ) -> list[DestroySandbox | DropZygote]:
        """Not those that rest while calls wait for them, unless it takes them too."""
        rank = partial(_rank, policy)
        unwanted = [one for one in idle if not _is_waited_for(one)]
        chosen = victims(unwanted, missing_mb, rank) or victims(idle, missing_mb, rank)
        self.age = max([self.age, *(policy.rank(one) for one in chosen)])
        return [action for one in chosen for action in self._end(one)]

    def _end(self, idle: Entry | Zygote) -> list[DestroySandbox | DropZygote]:
        """End it; a zygote with those who started from it."""
        if isinstance(idle, Entry):
            return [self.destroy(idle)] if idle.is_idle else []
        ends = [self.destroy(user) for user in idle.users.values() if user.is_idle]
        return [*ends, *self.brood.retire(idle)]

    def make_zygote(self, groups: Iterable[Group], now: float) -> list[DropZygote | MakeZygote]:
        """The one that is worth most, in room that nobody needs, or that a worse one has."""
        if self.brood.is_making or not self.can_start(now, spared=1):
            return []
        actions: list[DropZygote | MakeZygote] = []
        groups = list(groups)
        wanting = self.brood.wants_shared(groups, now)
        # One for several makes those of its members needless, mostly.
        wanting = wanting or [group for group in groups if self.brood.wants(group, now)]
        for group in sorted(wanting, key=lambda one: one.saves_s(now), reverse=True):
            lacking_mb = max(0, self.brood.lacks_mb(group))
            if self.has_room(making_mb(group) - lacking_mb):
                actions += self.brood.give_way(group, now) if lacking_mb else []
                if self.brood.lacks_mb(group) <= 0:
                    return [*actions, self.brood.make(group, now, self.age)]
        return actions

    def snapshot(self, waiting: int) -> Snapshot:
        count = dict.fromkeys(("starting", "busy", "idle", "dying"), 0)
        for entry in self.entries.values():
            is_busy = entry.phase is READY and entry.leases
            count["busy" if is_busy else "idle" if entry.phase is READY else entry.phase.value] += 1
        committed_mb = self.committed_mb + self._spare_mb
        return Snapshot(
            **count,
            waiting=waiting,
            spares=self._spares,
            committed_mb=committed_mb,
            budget_mb=self.budget_mb,
            zygotes=sum(zygote.is_ready for zygote in self.brood.zygotes.values()),
        )


def _rank(policy: Policy, one: Entry | Zygote) -> float:
    """A zygote goes after those who started from it."""
    if isinstance(one, Entry):
        return policy.rank(one)
    return max([policy.rank(one), *(policy.rank(user) for user in one.users.values())])


def _is_waited_for(one: Entry | Zygote) -> bool:
    """Whether calls wait for it, or for one that started from it, to count with its limit again."""
    entries = [one] if isinstance(one, Entry) else one.users.values()
    return any(entry.rests and entry.group.waiting for entry in entries)


def _enough(unknown: list[Entry], missing_mb: int) -> list[Entry]:
    """Those idle longest, so many that their limits are what is missing: mostly they hold far less."""
    chosen: list[Entry] = []
    for entry in sorted(unknown, key=lambda one: one.idle_since):
        if missing_mb <= 0:
            break
        chosen.append(entry)
        missing_mb -= entry.memory_mb
    return chosen
