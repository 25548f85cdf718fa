"""Drives the real plan with a clock of its own: thousands of calls a second, the same for the same seed.

What is simulated is the pool: how long a sandbox takes to be made, to import its function and to be gone.
Makings share the processors, calls do not compete for them: what differs between two runs is the policy.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from bench.arrivals import Arrival, Trace
from bench.probes import percentile
from stoker.pool.events import (
    DestroySandbox,
    Event,
    GrantLease,
    LeaseAsked,
    LeaseReturned,
    MeasureSandbox,
    Need,
    RefuseLease,
    SandboxGone,
    SandboxLoaded,
    SandboxMeasured,
    SandboxReady,
    StartSandbox,
    Tick,
)
from stoker.pool.plan import Plan
from stoker.pool.pool import HOUSEKEEPING_S, HURRY_S
from stoker.types import Reuse, Source

LEAST_HELD_MB = 8
"""An interpreter with next to nothing, and the kernel's part."""


class Costs(msgspec.Struct, frozen=True):
    """What things take: to the order of magnitude that was measured on two processors, not to the digit.

    Which functions import how much is an assumption, so the comparison is also made with all imports alike.
    """

    make_s: float = 0.004
    """From the wish to a sandbox that waits for a call."""
    gone_s: float = 0.003
    warm_s: float = 0.0002
    """What a call takes beside its own run."""
    load_s: tuple[float, ...] = (0.001, 0.001, 0.001, 0.03, 0.03, 0.15)
    """Imports: nothing, much of the standard library, a large package; functions take theirs in turn."""
    processors: int = 2
    idle_share: float | None = None
    """What an idle sandbox holds of its limit; None: it counts with its limit."""


class Result(msgspec.Struct, frozen=True):
    """What became of the calls of one trace."""

    calls: int
    cold: int
    pooled: int
    over_ms: tuple[float, ...]
    """Each call's latency beyond its own run, in ascending order."""
    idle_mb_s: float
    """Memory of sandboxes that nobody used, times how long."""
    evicted: int
    ended: int
    seconds: float
    peak_mb: int

    @property
    def cold_share(self) -> float:
        return self.cold / self.calls

    def over(self, percent: float) -> float:
        return percentile(list(self.over_ms), percent)


class Simulation:
    """One plan and one trace."""

    def __init__(self, trace: Trace, plan: Plan, costs: Costs, keep_s: float | None = None) -> None:
        self.trace = trace
        self.plan = plan
        self.costs = costs
        self.now = 0.0
        tells_memory = costs.idle_share is not None
        self.needs = [
            Need(one.name, one.name, Reuse.PROCESS, one.memory_mb, keep_s=keep_s, tells_memory=tells_memory)
            for one in trace.functions
        ]
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()
        self._processors = [0.0] * costs.processors
        self._leases: dict[int, Arrival] = {}
        self._is_loaded: set[int] = set()
        self._inside: dict[int, int] = {}
        self._needs_of: dict[int, Need] = {}
        self._idle_mb = 0
        self._idle_mb_s = 0.0
        self._committed_mb = 0
        self._peak_mb = 0
        self._sources = dict.fromkeys(Source, 0)
        self.done: list[tuple[int, float, float]] = []
        """Of each call that ended: its function, when, and how many milliseconds beyond its own run."""
        self._evicted = 0
        self._ended = 0
        self._is_tick = False
        self._act_on: dict[type, Callable[[Any], None]] = {
            StartSandbox: self._start,
            GrantLease: self._grant,
            DestroySandbox: self._destroy,
            RefuseLease: self._refuse,
            MeasureSandbox: self._measure,
        }

    def run(self) -> Result:
        for number, arrival in enumerate(self.trace.arrivals, 1):
            self._leases[number] = arrival
            self._at(arrival.at_s, self._ask, number)
        left = len(self.trace.arrivals)
        last_s = self.trace.arrivals[-1].at_s
        self._at(0.0, self._tick, None)
        while self._events and (len(self.done) < left or self.now < last_s):
            at, _, what, about = heapq.heappop(self._events)
            self._idle_mb_s += self._idle_mb * (at - self.now)
            self.now = at
            what(about)
        return Result(
            calls=left,
            cold=self._sources[Source.FRESH],
            pooled=self._sources[Source.POOLED],
            over_ms=tuple(sorted(over_ms for _, _, over_ms in self.done)),
            idle_mb_s=self._idle_mb_s,
            evicted=self._evicted,
            ended=self._ended,
            seconds=self.now,
            peak_mb=self._peak_mb,
        )

    def _at(self, when: float, what: Callable[[Any], None], about: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), what, about))

    def _feed(self, event: Event) -> None:
        had_waiting = self.plan.has_waiting
        for action in self.plan.on(event, self.now):
            self._act_on[type(action)](action)
        if self.plan.has_waiting and not had_waiting:
            self._at(self.now + HURRY_S, self._hurry, None)

    # What happens

    def _ask(self, lease: int) -> None:
        self._feed(LeaseAsked(lease, self.needs[self._leases[lease].function]))

    def _tick(self, _: None) -> None:
        self._look()
        self._at(self.now + HOUSEKEEPING_S, self._tick, None)

    def _hurry(self, _: None) -> None:
        self._look()
        if self.plan.has_waiting:
            self._at(self.now + HURRY_S, self._hurry, None)

    def _look(self) -> None:
        self._is_tick = True
        self._feed(Tick())
        self._is_tick = False

    def _made(self, sandbox: int) -> None:
        if sandbox in self._inside:
            self._idle_mb += self._needs_of[sandbox].memory_mb
            self._feed(SandboxReady(sandbox))

    def _over(self, about: tuple[int, int]) -> None:
        lease, sandbox = about
        arrival = self._leases.pop(lease)
        over_ms = (self.now - arrival.at_s - arrival.run_s) * 1000
        self.done.append((arrival.function, self.now, over_ms))
        self._inside[sandbox] -= 1
        if not self._inside[sandbox]:
            self._idle_mb += self._needs_of[sandbox].memory_mb
        self._feed(LeaseReturned(lease, True, arrival.run_s, arrival.cpu_s))

    def _gone(self, sandbox: int) -> None:
        self._committed_mb -= self._needs_of.pop(sandbox).memory_mb
        self._feed(SandboxGone(sandbox))

    # What the plan wants

    def _start(self, action: StartSandbox) -> None:
        self._inside[action.sandbox] = 0
        self._needs_of[action.sandbox] = action.need
        self._committed_mb += action.need.memory_mb
        self._peak_mb = max(self._peak_mb, self._committed_mb)
        free_at = max(heapq.heappop(self._processors), self.now) + self.costs.make_s
        heapq.heappush(self._processors, free_at)
        self._at(free_at, self._made, action.sandbox)

    def _grant(self, action: GrantLease) -> None:
        arrival = self._leases[action.lease]
        self._sources[action.source] += 1
        takes_s = self.costs.warm_s + arrival.run_s
        if action.sandbox not in self._is_loaded:
            self._is_loaded.add(action.sandbox)
            load_s = self.costs.load_s[arrival.function % len(self.costs.load_s)]
            takes_s += load_s
            self._at(self.now + load_s, self._feed, SandboxLoaded(action.sandbox, load_s))
        if not self._inside[action.sandbox]:
            self._idle_mb -= self._needs_of[action.sandbox].memory_mb
        self._inside[action.sandbox] += 1
        self._at(self.now + takes_s, self._over, (action.lease, action.sandbox))

    def _destroy(self, action: DestroySandbox) -> None:
        if self._is_tick:
            self._ended += 1
        else:
            self._evicted += 1
        if not self._inside.pop(action.sandbox):
            self._idle_mb -= self._needs_of[action.sandbox].memory_mb
        self._is_loaded.discard(action.sandbox)
        self._at(self.now + self.costs.gone_s, self._gone, action.sandbox)

    def _measure(self, action: MeasureSandbox) -> None:
        need, share = self._needs_of.get(action.sandbox), self.costs.idle_share
        held_mb = None if need is None or share is None else max(LEAST_HELD_MB, int(share * need.memory_mb))
        self._at(self.now, self._feed, SandboxMeasured(action.sandbox, held_mb))

    def _refuse(self, action: RefuseLease) -> None:
        raise AssertionError(action.reason)
