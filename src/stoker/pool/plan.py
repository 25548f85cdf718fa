"""Decides which sandbox serves which lease; knows no I/O and no clock.

Theory. The plan is a state machine: events go in with the time, actions come out; the pool acts and
reports back with further events. There is one line of waiting leases, in order of arrival.

* A lease is granted on a ready sandbox of its revision and reuse that has a place free; only then
  is it bound, so that a call which waits for a new sandbox takes a warm one freed before.
* Otherwise one is started for it, unless those that are there serve it sooner (`Group.is_worth_starting`).
* Starts go to the function that holds the least memory, and round among equals: one that floods the
  node does not keep the others out. When the one whose turn it is needs room, nobody behind it takes
  that room, else large functions starve.
* Room is made by destroying idle sandboxes, in the order that the policy gives (`keeping`), and only
  when that suffices. A sandbox holds its memory until it is gone, so the start waits for `SandboxGone`.
* Where idle ones do not suffice, those who hold more than the one whose turn it is give: what comes back
  to them serves nobody until there is room (`_gives`). Not before a sandbox has served for a while, else
  all time goes into starts.
* An idle sandbox may count with what it holds instead of its limit (see `stock`): when room is needed,
  those that were not yet measured are, before any is ended.
* What a function's import has made is kept as a zygote where that saves time (`brood`), in room that
  nobody needs; sandboxes that start later start from it.
* What room is left when nobody waits goes to prewarming, and never all of it.
* A backend may make sandboxes ahead, for nobody yet: spares. They have of what nobody else has, go first,
  and hold their memory until they are gone.
* Waking a sleeping process costs more than a short call runs. Where a revision's calls are known to be
  short, a lease may queue behind those inside a sandbox that is awake, up to `Need.depth` of them. If the
  one in front turns out long, the pool takes the queued calls back (nothing of them has begun, see
  `docs/wire.md`), tells by `SandboxStalled`, and asks anew.

HOLDS (invariant 4): leases of a sandbox never exceed its places; committed memory, dying sandboxes
included, never exceeds the budget; a waiting lease is granted, refused or withdrawn, never lost;
same events, same actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final

from stoker.pool.ahead import is_over, prewarmed
from stoker.pool.brood import Brood
from stoker.pool.events import (
    Action,
    Event,
    GrantLease,
    LeaseAsked,
    LeaseReturned,
    LeaseWithdrawn,
    LineageAged,
    LineageOver,
    Need,
    PrewarmChanged,
    RefuseLease,
    Retired,
    SandboxEnded,
    SandboxGone,
    SandboxLoaded,
    SandboxMeasured,
    SandboxQueues,
    SandboxReady,
    SandboxStalled,
    Snapshot,
    SparesChanged,
    Tick,
    ZygoteFailed,
    ZygoteReady,
)
from stoker.pool.groups import NEVER, STUCK_S, Entry, Group, Phase
from stoker.pool.keeping import FORGET_S, POLICIES
from stoker.pool.stock import Stock
from stoker.types import Source

READY: Final = Phase.READY
DYING: Final = Phase.DYING
WARM: Final = Source.WARM
FRESH: Final = Source.FRESH
POOLED: Final = Source.POOLED
QUANTUM_S = 0.05
"""A sandbox serves for so long before it gives its room to another function: ten times what a start costs."""
HEAD_S = 0.25
"""One that has waited for room so long gets it from everybody, however little they hold."""
LOOK_S = 0.1
"""Between two looks at what has been idle for too long, and at what computes."""


class Plan:
    """The one owner of the line, of every sandbox's state and of committed memory.

    `policy` is a row of `keeping.POLICIES`; no idle sandbox is kept longer than `keep_s`; at most
    `starts_at_once` are being made at a time, for starts beyond what the processors can do only wait.
    """

    def __init__(
        self,
        budget_mb: int,
        policy: str,
        keep_s: float | None = None,
        starts_at_once: int = 1000,
        spare_mb: int = 0,
        zygotes_mb: int = 0,
    ) -> None:
        self._brood = Brood(zygotes_mb)
        self._stock = Stock(budget_mb, starts_at_once, spare_mb, self._brood)
        self._policy = POLICIES[policy]
        self._keep_s = math.inf if keep_s is None else keep_s
        self._groups: dict[str, Group] = {}
        self._line: dict[int, Group] = {}
        self._turns: dict[Group, None] = {}
        """Groups with waiting leases, whose turn it is to start a sandbox first."""
        self._blocked: Group | None = None
        """Whose turn it is, where there is no room for it."""
        self._granted: dict[int, Entry] = {}
        self._looked_at = NEVER
        self._prewarm = PrewarmChanged(0, 0)
        self._actions: list[Action] = []
        self._left_to_spares: tuple[int, Group | None] = (-1, None)
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            LeaseWithdrawn: self._on_withdrawn,
            SandboxReady: self._on_ready,
            SandboxLoaded: self._on_loaded,
            SandboxQueues: self._on_queues,
            SandboxStalled: self._on_stalled,
            SandboxMeasured: self._on_measured,
            SandboxEnded: self._on_ended,
            SandboxGone: self._on_gone,
            Retired: self._on_retired,
            PrewarmChanged: self._on_prewarm_changed,
            SparesChanged: self._on_spares_changed,
            ZygoteReady: self._on_zygote,
            ZygoteFailed: self._on_zygote,
            LineageAged: self._on_lineage_aged,
            LineageOver: self._on_lineage_over,
            Tick: self._on_tick,
        }

    def __repr__(self) -> str:
        return f"<Plan {self.snapshot()}>"

    @property
    def has_waiting(self) -> bool:
        return bool(self._line)

    @property
    def known(self) -> Collection[str]:
        """The keys of needs that it keeps in mind."""
        return self._groups.keys()

    def on(self, event: Event, now: float) -> list[Action]:
        """What is to be done now that `event` has happened. Events about what is over are ignored."""
        if isinstance(event, LeaseAsked):
            return self.asked(event.lease, event.need, now)
        if isinstance(event, LeaseReturned):
            return self.returned(
                event.lease, event.is_healthy, event.run_s, event.cpu_s, event.has_written, now
            )
        self._actions = []
        self._handlers[type(event)](event, now)
        return self._decided()

    def _decided(self) -> list[Action]:
        if self._left_to_spares != (self._stock.committed_mb, self._blocked):
            self._bound_spares()
        return self._actions

    def snapshot(self) -> Snapshot:
        return self._stock.snapshot(len(self._line))

    # Leases

    def asked(self, lease: int, need: Need, now: float) -> list[Action]:
        """`on`, for `LeaseAsked` and `LeaseReturned`, which are nearly all there are."""
        self._actions = []
        group = self._groups.get(need.key)
        if group is None:
            group = self._groups[need.key] = Group(need)
        group.need = need
        if group.running == 0:
            group.came(now)
        group.last_asked = now
        group.prewarm_failed = False
        entry = None if group.waiting else group.place()
        if entry is not None and self._may_enter(entry, now):
            self._grant(lease, entry)
            if self._prewarm.functions > 0 and not self._line:
                self._fill_prewarm(now)
            elif entry.leases > 1:
                return self._actions  # no memory is held that was not
        elif need.memory_mb > self._stock.budget_mb:
            have = f"all sandboxes together may use {self._stock.budget_mb}"
            reason = f"the function needs {need.memory_mb} MB, {have}"
            self._actions.append(RefuseLease(lease, reason, is_for_good=True))
        else:
            self._line_up(lease, group, now)
        return self._decided()

    def _line_up(self, lease: int, group: Group, now: float) -> None:
        if not group.waiting:
            group.moved_at = now
            self._turns[group] = None
        group.waiting[lease] = None
        self._line[lease] = group
        if group.wants_room():
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

    def returned(
        self, lease: int, is_healthy: bool, run_s: float | None, cpu_s: float, has_written: bool, now: float
    ) -> list[Action]:
        self._actions = []
        is_quiet = not self._line
        entry = self._granted.pop(lease, None)
        if entry is not None:
            group = entry.group
            group.running -= 1
            entry.leases -= 1
            entry.idle_since = group.moved_at = now
            if entry.phase is READY:
                if run_s is not None:
                    group.learn(run_s, cpu_s)
                if has_written:
                    group.talks = True
                self._take_back(entry, is_healthy, now)
                is_quiet = is_quiet and not entry.is_retired
        return self._actions if is_quiet else self._decided()

    def _take_back(self, entry: Entry, is_healthy: bool, now: float) -> None:
        if not is_healthy or entry.serves_once:
            self._stock.retire(entry)
        if not entry.is_retired:
            self._free(entry, now)
        elif entry.leases == 0:
            self._destroy(entry)
            self._start_for_line(now)

    def _grant(self, lease: int, entry: Entry) -> None:
        group = entry.group
        source = WARM if entry.served else FRESH if entry.waited_for else POOLED
        entry.leases = leases = entry.leases + 1
        entry.served += 1
        group.running += 1
        self._granted[lease] = entry
        if leases == entry.places:
            if group.free[-1] is entry:
                group.free.pop()
            else:
                group.free.remove(entry)
        self._actions.append(GrantLease(lease, entry.id, source, leases <= entry.places))

    def _free(self, entry: Entry, now: float) -> None:
        """A place of the entry has come free: for those who wait for it, then for whoever comes."""
        group = entry.group
        entry.age = self._stock.age
        if entry.leases == entry.places - 1 or not entry.served:
            group.free.append(entry)
        if self._line:
            self._serve(group, now)
            if entry.leases == 0:
                self._start_for_line(now)

    def _serve(self, group: Group, now: float) -> None:
        """Grant what is there to those of the group's line, on free places first."""
        while group.waiting:
            entry = group.free[-1] if group.free else group.place_behind()
            if entry is None or not self._may_enter(entry, now):
                return
            lease = next(iter(group.waiting))
            self._unline(lease, group)
            self._grant(lease, entry)

    def _may_enter(self, entry: Entry, now: float) -> bool:
        """Whether a lease may have the place; one that rests takes room, for which the others line up too."""
        if self._blocked is not None and (entry.rests or self._gives(entry, now)):
            return False
        return entry.leases > 0 or self._stock.rouse(entry)

    def _gives(self, entry: Entry, now: float) -> bool:
        """Whether its places go to the function whose turn it is and which has no room, not to its own."""
        blocked, group = self._blocked, entry.group
        if blocked is None or blocked is group or now - entry.ready_at < QUANTUM_S:
            return False
        if self._stock.missing_mb(blocked) <= 0:
            return False
        is_richer = group.committed_mb >= blocked.committed_mb + blocked.need.memory_mb
        return is_richer or now - blocked.blocked_at >= HEAD_S

    # Sandboxes

    def _on_ready(self, event: SandboxReady, now: float) -> None:
        entry = self._stock.ready(event.sandbox, now)
        if entry is None:
            return
        if entry.is_retired:
            self._destroy(entry)
        else:
            self._free(entry, now)
        self._start_for_line(now)

    def _on_loaded(self, event: SandboxLoaded, now: float) -> None:
        entry = self._stock.entries.get(event.sandbox)
        if entry is not None:
            self._actions += self._brood.loaded(entry, event)

    def _on_queues(self, event: SandboxQueues, now: float) -> None:
        entry = self._stock.entries.get(event.sandbox)
        if entry is not None and not entry.is_retired:
            entry.group.queueing[entry.id] = entry

    def _on_stalled(self, event: SandboxStalled, now: float) -> None:
        entry = self._stock.entries.get(event.sandbox)
        if entry is not None:
            entry.group.queueing.pop(entry.id, None)

    def _on_measured(self, event: SandboxMeasured, now: float) -> None:
        entry = self._stock.measured(event.sandbox, event.memory_mb)
        if entry is not None:
            self._destroy(entry)
        if self._line:
            self._start_for_line(now)

    def _on_ended(self, event: SandboxEnded, now: float) -> None:
        entry = self._stock.entries.get(event.sandbox)
        if entry is None or entry.phase is DYING:
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
        self._actions += self._stock.gone(event.sandbox)
        self._start_for_line(now)

    def _on_retired(self, event: Retired, now: float) -> None:
        for group in list(self._groups.values()):
            by_prefix = event.prefix and group.need.function.startswith(event.prefix)
            if group.need.revision == event.revision or by_prefix:
                for entry in list(group.entries.values()):
                    self._stock.retire(entry)
                    if entry.is_idle:
                        self._destroy(entry)
                group.last_asked = NEVER
                self._actions += self._brood.forget(group)
        self._start_for_line(now)

    def _destroy(self, entry: Entry) -> None:
        self._actions.append(self._stock.destroy(entry))

    # Room

    def _start_for_line(self, now: float) -> None:
        """Start what those in line need, as far as there is room; then serve whom that frees, and prewarm."""
        if self._line or self._blocked is not None:
            before, self._blocked = self._blocked, None
            self._blocked = self._start_in_turn(now, before)
            if before is not None and before is not self._blocked:
                before.blocked_at = NEVER
                self._serve_all(now)
        if not self._line:
            self._fill_prewarm(now)

    def _start_in_turn(self, now: float, before: Group | None) -> Group | None:
        """Whose turn it is and who has no room, as the one `before` may still be; None: nobody lacks room."""
        while wanting := [one for one in self._turns if one.wants_room()]:
            group = min(wanting, key=Group.turn)
            if group.free and self._stock.has_room(group.lacks_mb):  # one that rests, or was kept for another
                self._serve(group, now)
            elif not group.free and not self._stock.can_start(now):
                return before if before in wanting else None
            elif not group.free and self._stock.has_room(group.need.memory_mb):
                self._actions.append(self._stock.start(group, now, waited_for=True))
                group.blocked_at = NEVER
                del self._turns[group]
                self._turns[group] = None
            else:
                group.blocked_at = now if group.blocked_at == NEVER else group.blocked_at
                # For one that is there room may come with the end of the next call: none is ended before.
                may_end = not group.free or now - group.blocked_at >= STUCK_S
                self._actions += self._stock.make_room(group, self._policy, may_end)
                if self._stock.has_room(group.lacks_mb):
                    continue  # zygotes went, which takes no time
                return group
        return None

    def _serve_all(self, now: float) -> None:
        for group in list(self._turns):
            self._serve(group, now)

    def _bound_spares(self) -> None:
        """They have what is left by others, and by the one that waits for room."""
        self._left_to_spares = (self._stock.committed_mb, self._blocked)
        self._actions += self._stock.bound_spares(self._blocked.lacks_mb if self._blocked else 0)

    def _on_spares_changed(self, event: SparesChanged, now: float) -> None:
        self._stock.spares_changed(event.number, event.memory_mb)
        if self._blocked is not None:
            self._start_for_line(now)

    # Time and prewarming

    def _on_tick(self, event: Tick, now: float) -> None:
        for group in self._turns:
            group.look(now)
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._end_what_is_over(now)
            self._actions += self._stock.look_at_resting()
            self._start_expected(now)
            if not self._line:
                self._actions += self._stock.make_zygote(self._groups.values(), now)
            self._actions += self._brood.release()
        self._start_for_line(now)
        self._serve_all(now)

    def _end_what_is_over(self, now: float) -> None:
        kept_ahead = prewarmed(self._groups.values(), self._prewarm)
        for entry in list(self._stock.entries.values()):
            is_kept = not entry.served and entry.group in kept_ahead
            if entry.is_idle and not is_kept and is_over(entry, now, self._policy, self._keep_s):
                self._destroy(entry)
        for key, group in list(self._groups.items()):
            if not group.entries and not group.waiting and now - group.last_asked > FORGET_S:
                self._actions += self._brood.forget(group)
                del self._groups[key]
        self._actions += self._brood.forget_shared(now)

    def _start_expected(self, now: float) -> None:
        """Start what the policy expects to be called, in room that nobody needs, and leave some."""
        for group in self._groups.values() if self._policy.expects and not self._line else ():
            if group.committed_mb or group.prewarm_failed or group.need.keep_s is not None:
                continue
            opens_s, closes_s = self._policy.window(group.habit)
            if opens_s and opens_s <= now - group.moved_at < min(closes_s, self._keep_s):
                if not self._has_room_for_more_than(group) or not self._stock.can_start(now, spared=1):
                    return
                self._actions.append(self._stock.start(group, now, waited_for=False))

    def _has_room_for_more_than(self, group: Group) -> bool:
        """Whether any call that comes finds room at once, also after a start for this group."""
        largest = max(group.need.memory_mb for group in self._groups.values())
        return self._stock.has_room(group.need.memory_mb + largest)

    def _on_zygote(self, event: ZygoteReady | ZygoteFailed, now: float) -> None:
        self._actions += self._brood.made(event, now)
        self._start_for_line(now)

    def _on_lineage_aged(self, event: LineageAged, now: float) -> None:
        self._brood.aged(event.lineage)

    def _on_lineage_over(self, event: LineageOver, now: float) -> None:
        self._actions += self._brood.over(event.lineage)
        self._start_for_line(now)

    def _on_prewarm_changed(self, event: PrewarmChanged, now: float) -> None:
        self._prewarm = event
        wanted = prewarmed(self._groups.values(), self._prewarm)
        for group in self._groups.values():
            kept = event.each if group in wanted else 0
            unused = [entry for entry in group.entries.values() if entry.is_idle and not entry.served]
            for entry in unused[kept:]:
                self._destroy(entry)
        self._start_for_line(now)

    def _fill_prewarm(self, now: float) -> None:
        for group in prewarmed(self._groups.values(), self._prewarm):
            unused = sum(not entry.served and not entry.is_retired for entry in group.entries.values())
            for _ in range(self._prewarm.each - unused if not group.prewarm_failed else 0):
                if not self._stock.has_room(group.need.memory_mb) or group.is_full():
                    return
                if not self._stock.can_start(now, spared=1):
                    return
                self._actions.append(self._stock.start(group, now, waited_for=False))
