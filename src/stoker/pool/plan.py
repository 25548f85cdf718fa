"""Decides which sandbox serves which lease; knows no I/O and no clock.

Theory. The plan is a state machine: events go in with the time, actions come out; the pool acts and
reports back with further events. There is one line of waiting leases, in order of arrival.

* A lease is granted on a ready sandbox of its revision and reuse that has a place free; only then
  is it bound, so that a call which waits for a new sandbox takes a warm one freed before.
* Otherwise a sandbox is started for it, unless those that are there will serve it sooner (see
  `Group.is_worth_starting`).
* Starts go round: each group with waiting leases gets one in turn. When the group whose turn it is
  needs room, nobody behind it takes that room, else large functions starve. Granting what is already
  there needs no room and may overtake.
* Room is made by destroying idle sandboxes, those idle longest first, and only when that suffices.
  A sandbox holds its memory until it is gone, so the start waits for `SandboxGone`.
* What room is left when nobody waits goes to prewarming.
* Waking a sleeping process costs more than a short call runs. Where a revision's calls are known to
  be short, a lease may therefore queue behind those inside a sandbox that is awake, up to
  `Need.depth` of them. If the one in front turns out long, the pool takes the queued calls back
  (nothing of them has begun, see `docs/wire.md`), tells by `SandboxStalled`, and asks anew.

HOLDS (invariant 4): leases of a sandbox never exceed its places; committed memory, dying sandboxes
included, never exceeds the budget; a waiting lease is granted, refused or withdrawn, never lost;
same events, same actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker.pool.events import (
    Action,
    DestroySandbox,
    Event,
    GrantLease,
    LeaseAsked,
    LeaseReturned,
    LeaseWithdrawn,
    PrewarmChanged,
    RefuseLease,
    Retired,
    SandboxEnded,
    SandboxGone,
    SandboxQueues,
    SandboxReady,
    SandboxStalled,
    Snapshot,
    StartSandbox,
    Tick,
)
from stoker.pool.groups import NEVER, Entry, Group, Phase
from stoker.pool.keeping import Idle, longest_idle
from stoker.types import Reuse, Source

GroupKey = tuple[str, Reuse]


class Plan:
    """The one owner of the line, of every sandbox's state and of committed memory."""

    def __init__(self, budget_mb: int) -> None:
        self._budget_mb = budget_mb
        self._committed_mb = 0
        self._entries: dict[int, Entry] = {}
        self._groups: dict[GroupKey, Group] = {}
        self._line: dict[int, Group] = {}
        self._turns: dict[Group, None] = {}
        """Groups with waiting leases, whose turn it is to start a sandbox first."""
        self._granted: dict[int, Entry] = {}
        self._last_sandbox = 0
        self._prewarm = PrewarmChanged(0, 0)
        self._actions: list[Action] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            LeaseAsked: self._on_asked,
            LeaseWithdrawn: self._on_withdrawn,
            LeaseReturned: self._on_returned,
            SandboxReady: self._on_ready,
            SandboxQueues: self._on_queues,
            SandboxStalled: self._on_stalled,
            SandboxEnded: self._on_ended,
            SandboxGone: self._on_gone,
            Retired: self._on_retired,
            PrewarmChanged: self._on_prewarm_changed,
            Tick: self._on_tick,
        }

    def __repr__(self) -> str:
        return f"<Plan {self.snapshot()}>"

    @property
    def has_waiting(self) -> bool:
        return bool(self._line)

    @property
    def group_count(self) -> int:
        return len(self._groups)

    def has_group(self, revision: str, reuse: Reuse) -> bool:
        return (revision, reuse) in self._groups

    def on(self, event: Event, now: float) -> list[Action]:
        """What is to be done now that `event` has happened. Events about what is over are ignored."""
        actions: list[Action] = []
        self._actions = actions
        self._handlers[type(event)](event, now)
        return actions

    def snapshot(self) -> Snapshot:
        count = dict.fromkeys(("starting", "busy", "idle", "dying"), 0)
        for entry in self._entries.values():
            is_busy = entry.phase is Phase.READY and entry.leases
            count["busy" if is_busy else "idle" if entry.phase is Phase.READY else entry.phase.value] += 1
        return Snapshot(
            **count, waiting=len(self._line), committed_mb=self._committed_mb, budget_mb=self._budget_mb
        )

    # Leases

    def _on_asked(self, event: LeaseAsked, now: float) -> None:
        need = event.need
        group = self._groups.get((need.revision, need.reuse))
        if group is None:
            group = self._groups[need.revision, need.reuse] = Group(need)
        group.need = need
        group.last_asked = now
        group.prewarm_failed = False
        if need.memory_mb > self._budget_mb:
            have = f"all sandboxes together may use {self._budget_mb}"
            reason = f"the function needs {need.memory_mb} MB, {have}"
            self._actions.append(RefuseLease(event.lease, reason, is_for_good=True))
        elif not group.waiting and (entry := group.place()):
            self._grant(event.lease, entry)
            if self._prewarm.functions > 0:
                self._fill_prewarm(now)
        else:
            if not group.waiting:
                group.moved_at = now
                self._turns[group] = None
            group.waiting[event.lease] = None
            self._line[event.lease] = group
            if group.wants_start(now):
                self._start_for_line(now)

    def _on_withdrawn(self, event: LeaseWithdrawn, now: float) -> None:
        group = self._line.get(event.lease)
        if group is not None:
            self._unline(event.lease, group)
            self._start_for_line(now)

    def _unline(self, lease: int, group: Group) -> None:
        del group.waiting[lease], self._line[lease]
        if not group.waiting:
            del self._turns[group]

    def _on_returned(self, event: LeaseReturned, now: float) -> None:
        entry = self._granted.pop(event.lease, None)
        if entry is None:
            return
        entry.leases -= 1
        entry.idle_since = entry.group.moved_at = now
        if entry.phase is not Phase.READY:
            return
        if event.run_s is not None:
            entry.group.learn(event.run_s, event.cpu_s)
        entry.group.talks = entry.group.talks or event.has_written
        if not event.is_healthy or entry.need.reuse is Reuse.NONE:
            self._retire(entry)
        if entry.is_retired:
            if entry.leases == 0:
                self._destroy(entry)
                self._start_for_line(now)
        else:
            self._free(entry, now)

    def _grant(self, lease: int, entry: Entry) -> None:
        source = Source.WARM if entry.served else Source.FRESH if entry.waited_for else Source.POOLED
        entry.leases += 1
        entry.served += 1
        self._granted[lease] = entry
        if entry.leases >= entry.need.places:
            entry.group.free.pop(entry.id, None)
        self._actions.append(GrantLease(lease, entry.id, source, entry.leases <= entry.need.places))

    def _free(self, entry: Entry, now: float) -> None:
        """Offer the entry's places to those who wait for them, then to whoever comes."""
        group = entry.group
        while group.waiting and entry.has_place:
            lease = next(iter(group.waiting))
            self._unline(lease, group)
            self._grant(lease, entry)
        while group.waiting and (behind := group.place_behind()):
            lease = next(iter(group.waiting))
            self._unline(lease, group)
            self._grant(lease, behind)
        if entry.has_place:
            group.free[entry.id] = entry
            group.free.move_to_end(entry.id)
        if entry.is_idle and self._line:
            self._start_for_line(now)

    # Sandboxes

    def _on_ready(self, event: SandboxReady, now: float) -> None:
        entry = self._entries.get(event.sandbox)
        if entry is None or entry.phase is not Phase.STARTING:
            return
        entry.phase = Phase.READY
        entry.idle_since = now
        entry.group.starting -= entry.need.places
        entry.group.serving += not entry.is_retired
        if entry.is_retired:
            self._destroy(entry)
        else:
            self._free(entry, now)
            self._fill_prewarm(now)

    def _on_queues(self, event: SandboxQueues, now: float) -> None:
        entry = self._entries.get(event.sandbox)
        if entry is not None and not entry.is_retired:
            entry.group.queueing[entry.id] = entry

    def _on_stalled(self, event: SandboxStalled, now: float) -> None:
        entry = self._entries.get(event.sandbox)
        if entry is not None:
            entry.group.queueing.pop(entry.id, None)

    def _on_ended(self, event: SandboxEnded, now: float) -> None:
        entry = self._entries.get(event.sandbox)
        if entry is None or entry.phase is Phase.DYING:
            return
        group = entry.group
        group.prewarm_failed = group.prewarm_failed or entry.served == 0
        if event.reason and group.waiting:
            lease = next(iter(group.waiting))
            self._unline(lease, group)
            self._actions.append(RefuseLease(lease, event.reason))
        self._destroy(entry)
        self._start_for_line(now)

    def _on_gone(self, event: SandboxGone, now: float) -> None:
        entry = self._entries.pop(event.sandbox, None)
        if entry is None:
            return
        self._committed_mb -= entry.need.memory_mb
        del entry.group.entries[entry.id]
        self._start_for_line(now)

    def _on_retired(self, event: Retired, now: float) -> None:
        for key, group in list(self._groups.items()):
            by_prefix = event.prefix and group.need.function.startswith(event.prefix)
            if key[0] == event.revision or by_prefix:
                for entry in list(group.entries.values()):
                    self._retire(entry)
                    if entry.is_idle:
                        self._destroy(entry)
                group.last_asked = NEVER
        self._start_for_line(now)

    def _retire(self, entry: Entry) -> None:
        if not entry.is_retired:
            entry.is_retired = True
            entry.group.serving -= entry.phase is Phase.READY
            entry.group.free.pop(entry.id, None)
            entry.group.queueing.pop(entry.id, None)

    def _destroy(self, entry: Entry) -> None:
        self._retire(entry)
        if entry.phase is Phase.STARTING:
            entry.group.starting -= entry.need.places
        entry.phase = Phase.DYING
        self._actions.append(DestroySandbox(entry.id))

    def _start(self, group: Group, now: float, waited_for: bool) -> None:
        self._last_sandbox += 1
        entry = Entry(self._last_sandbox, group, now, waited_for)
        self._entries[entry.id] = group.entries[entry.id] = entry
        group.starting += entry.need.places
        self._committed_mb += entry.need.memory_mb
        self._actions.append(StartSandbox(entry.id, entry.need))

    # Room

    def _start_for_line(self, now: float) -> None:
        """Start what those in line need, group by group in turn, as far as there is room."""
        while wanting := [group for group in self._turns if group.wants_start(now)]:
            for group in wanting:
                if not self._make_room(group.need.memory_mb):
                    return
                self._start(group, now, waited_for=True)
                del self._turns[group]
                self._turns[group] = None
        self._fill_prewarm(now)

    def _make_room(self, memory_mb: int) -> bool:
        """True when there is room now. Destroys idle sandboxes if that, and what is dying, makes it."""
        missing = self._committed_mb + memory_mb - self._budget_mb
        if missing <= 0:
            return True
        missing -= sum(entry.need.memory_mb for entry in self._entries.values() if entry.phase is Phase.DYING)
        if missing > 0:
            for victim in longest_idle(self._idle(), missing):
                self._destroy(self._entries[victim])
        return False

    def _idle(self) -> list[Idle]:
        return [Idle(e.id, e.idle_since, e.need.memory_mb) for e in self._entries.values() if e.is_idle]

    # Time and prewarming

    def _on_tick(self, event: Tick, now: float) -> None:
        prewarmed = self._prewarmed_groups()
        for entry in list(self._entries.values()):
            is_kept = not entry.served and entry.group in prewarmed
            if entry.is_idle and not is_kept and now - entry.idle_since >= entry.need.keep_s:
                self._destroy(entry)
        for key, group in list(self._groups.items()):
            if not group.entries and not group.waiting and now - group.last_asked > group.need.keep_s:
                del self._groups[key]
        self._start_for_line(now)

    def _on_prewarm_changed(self, event: PrewarmChanged, now: float) -> None:
        self._prewarm = event
        wanted = self._prewarmed_groups()
        for group in self._groups.values():
            kept = event.each if group in wanted else 0
            unused = [entry for entry in group.entries.values() if entry.is_idle and not entry.served]
            for entry in unused[kept:]:
                self._destroy(entry)
        self._start_for_line(now)

    def _prewarmed_groups(self) -> list[Group]:
        if self._prewarm.functions <= 0 or self._prewarm.each <= 0:
            return []
        candidates = [
            group
            for group in self._groups.values()
            if group.need.reuse is Reuse.NONE and group.last_asked != NEVER
        ]
        candidates.sort(key=lambda group: group.last_asked, reverse=True)
        return candidates[: self._prewarm.functions]

    def _fill_prewarm(self, now: float) -> None:
        if self._line:
            return
        for group in self._prewarmed_groups():
            unused = sum(not entry.served and not entry.is_retired for entry in group.entries.values())
            for _ in range(self._prewarm.each - unused if not group.prewarm_failed else 0):
                if self._committed_mb + group.need.memory_mb > self._budget_mb or group.is_full():
                    return
                self._start(group, now, waited_for=False)
