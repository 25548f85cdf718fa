"""What the plan knows of the sandboxes of one revision, and how it reckons with them."""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum

from stoker.pool.events import Need

START_COST_S = 0.004
"""What starting one sandbox is taken to cost when deciding whether waiting is quicker."""
NEVER = -math.inf
SHORT_S = 0.0005
"""Leases queue inside sandboxes only where the function runs for less than this."""
WAKE_S = 0.0001
"""What waking a sleeping sandbox costs, there and here: so much waiting behind others is as good."""
LEAST_CPU_S = 0.000005
"""What any call costs a sandbox, however little the function does."""
STUCK_S = 0.02
"""A line, or a queue inside a sandbox, that has not moved for so long does not move. Shorter than this
a busy machine alone can keep it waiting, and then more sandboxes would make it busier."""
RUN_WEIGHT = 0.2
"""Of the newest run in the moving average of a revision's run times."""


class Phase(Enum):
    STARTING = "starting"
    READY = "ready"
    DYING = "dying"


class Entry:
    """One sandbox, as the plan sees it."""

    __slots__ = (
        "group",
        "id",
        "idle_since",
        "is_retired",
        "leases",
        "need",
        "phase",
        "served",
        "waited_for",
    )

    def __init__(self, number: int, group: Group, now: float, waited_for: bool) -> None:
        self.id = number
        self.group = group
        self.need = group.need
        self.phase = Phase.STARTING
        self.leases = 0
        self.served = 0
        self.is_retired = False
        self.idle_since = now
        self.waited_for = waited_for

    def __repr__(self) -> str:
        state = "retired" if self.is_retired else self.phase.value
        return f"<Entry {self.id} {self.need.function} {state} {self.leases}/{self.need.places}>"

    @property
    def is_idle(self) -> bool:
        return self.phase is Phase.READY and self.leases == 0

    @property
    def has_place(self) -> bool:
        return self.phase is Phase.READY and not self.is_retired and self.leases < self.need.places


class Group:
    """Everything of one revision and reuse: its sandboxes and who waits for them."""

    __slots__ = (
        "cpu_s",
        "entries",
        "free",
        "last_asked",
        "moved_at",
        "need",
        "prewarm_failed",
        "queueing",
        "run_s",
        "serving",
        "starting",
        "talks",
        "waiting",
    )

    def __init__(self, need: Need) -> None:
        self.need = need
        self.entries: dict[int, Entry] = {}
        self.free: OrderedDict[int, Entry] = OrderedDict()
        """Those with a place, the most recently freed last: a few stay hot, the rest can expire."""
        self.queueing: dict[int, Entry] = {}
        """Those in which leases may queue."""
        self.talks = False
        """Its calls write output, which is told apart by what is read between two of them: none queues."""
        self.waiting: OrderedDict[int, None] = OrderedDict()
        self.serving = 0
        """Sandboxes that are ready and not retired."""
        self.starting = 0
        """Places of those being started."""
        self.run_s = -1.0
        self.cpu_s = 0.0
        self.moved_at = 0.0
        """When its line last moved, or began."""
        self.last_asked = NEVER
        self.prewarm_failed = False

    def __repr__(self) -> str:
        return f"<Group {self.need.function} {len(self.entries)} sandboxes, {len(self.waiting)} waiting>"

    def wants_start(self, now: float) -> bool:
        return len(self.waiting) > self.starting and not self.is_full() and self.is_worth_starting(now)

    def is_full(self) -> bool:
        """Whether one more sandbox could serve more leases at a time than the function allows."""
        return 0 < self.need.at_most <= len(self.entries) * self.need.places

    def is_worth_starting(self, now: float) -> bool:
        """Whether those in line would wait longer for the sandboxes that serve than for a new one.

        Reckoned with the time the function itself runs, not with how long leases are held: on a busy
        machine leases are held longer, and more sandboxes would make that worse. Where the reckoning
        is wrong because calls hang, the line does not move.
        """
        if not self.serving or self.run_s < 0:
            return True
        ahead_s = len(self.waiting) * self.run_s / (self.serving * self.need.places)
        return ahead_s >= START_COST_S or now - self.moved_at >= STUCK_S

    def place(self) -> Entry | None:
        """Where one more lease goes at once: behind others if soon, on a free one, else behind others."""
        if self.queueing and (entry := self.queue_for(WAKE_S)):
            return entry
        if self.free:
            return next(reversed(self.free.values()))
        return self.place_behind() if self.queueing else None

    def place_behind(self) -> Entry | None:
        """A busy sandbox whose queue has a place."""
        return self.queue_for(SHORT_S * self.need.depth)

    def queue_for(self, wait_s: float) -> Entry | None:
        """A busy sandbox in which one more lease would wait for at most `wait_s` of processor time.

        Of processor time, because on a busy machine any run takes longer, and another sandbox as well.
        """
        if not 0 <= self.run_s < SHORT_S or self.talks or not self.need.depth:
            return None
        cpu_s = self.cpu_s if self.cpu_s > LEAST_CPU_S else LEAST_CPU_S
        for entry in self.queueing.values():
            if 0 < entry.leases <= self.need.depth and entry.leases * cpu_s <= wait_s:
                return entry
        return None

    def learn(self, run_s: float, cpu_s: float) -> None:
        weight = 1.0 if self.run_s < 0 else RUN_WEIGHT
        self.run_s += weight * (run_s - self.run_s)
        self.cpu_s += weight * (cpu_s - self.cpu_s)
