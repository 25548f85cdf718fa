"""What the plan knows of the sandboxes of one revision, and how it reckons with them."""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final

from stoker.pool.events import Need
from stoker.pool.keeping import PAUSE_S, Habit
from stoker.types import Reuse

if TYPE_CHECKING:
    from stoker.pool.brood import Zygote

START_COST_S: Final = 0.004
"""What starting one sandbox is taken to cost when deciding whether waiting is quicker."""
NEVER: Final = -math.inf
SHORT_S: Final = 0.0005
"""Leases queue inside sandboxes only where the function runs for less than this."""
WAKE_S: Final = 0.0001
"""What waking a sleeping sandbox costs, there and here: so much waiting behind others is as good."""
LONGEST_QUEUE_S: Final = 0.008
"""No lease queues where those before it take more processor time."""
LEAST_CPU_S: Final = 0.000005
"""What any call costs a sandbox, however little the function does."""
STUCK_S: Final = 0.02
"""A line, or a queue inside a sandbox, that has not moved for so long does not move. Shorter than this
a busy machine alone can keep it waiting, and then more sandboxes would make it busier."""
HALF_S: Final = 600.0
"""What happened so long ago counts half in `Lately`."""
NEWEST_WEIGHT: Final = 0.2
"""Of the newest run, or start, in the moving average of a revision's."""


class Lately:
    """How often something happened, what is `HALF_S` ago counting half."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._count, self._at = 0.0, NEVER

    def __repr__(self) -> str:
        return f"<Lately {self._count:.2f} at {self._at:.1f}>"

    def happened(self, now: float) -> None:
        self._count, self._at = self.count(now) + 1, now

    def count(self, now: float) -> float:
        return self._count * 0.5 ** ((now - self._at) / HALF_S) if self._count else 0.0


class Phase(Enum):
    STARTING = "starting"
    READY = "ready"
    DYING = "dying"


class Entry:
    """One sandbox, as the plan sees it."""

    __slots__ = (
        "age",
        "group",
        "held_mb",
        "id",
        "idle_since",
        "is_looked_at",
        "is_retired",
        "leases",
        "memory_mb",
        "need",
        "phase",
        "places",
        "ready_at",
        "served",
        "serves_once",
        "waited_for",
        "zygote",
    )

    def __init__(self, number: int, group: Group, now: float, waited_for: bool) -> None:
        self.id = number
        self.group = group
        self.need = group.need
        self.memory_mb = group.need.memory_mb
        self.held_mb = group.need.memory_mb
        """What it counts with: its limit, or less where it rests."""
        self.is_looked_at = not group.need.tells_memory
        """Measuring it tells nothing new: that was done since it became idle, or cannot be done."""
        self.places = group.need.places
        self.serves_once = group.need.reuse is Reuse.NONE
        self.phase = Phase.STARTING
        self.leases = 0
        self.served = 0
        self.is_retired = False
        self.idle_since = now
        self.ready_at = now
        self.age = 0.0
        self.waited_for = waited_for
        self.zygote: Zygote | None = None
        """What it started from."""

    def __repr__(self) -> str:
        state = "retired" if self.is_retired else self.phase.value
        return f"<Entry {self.id} {self.need.function} {state} {self.leases}/{self.places}>"

    @property
    def is_idle(self) -> bool:
        return self.leases == 0 and self.phase is Phase.READY

    @property
    def rests(self) -> bool:
        """It counts with less than its limit; no lease enters before it counts with all of that again."""
        return self.held_mb < self.memory_mb

    @property
    def cost_s(self) -> float:
        return self.group.start_s + self.group.load_s


class Group:
    """Everything of one revision and reuse: its sandboxes and who waits for them."""

    __slots__ = (
        "attempts",
        "blocked_at",
        "committed_mb",
        "cpu_s",
        "entries",
        "free",
        "habit",
        "import_s",
        "imports",
        "last_asked",
        "load_s",
        "moved_at",
        "need",
        "never_shares",
        "prewarm_failed",
        "queueing",
        "rest_s",
        "run_s",
        "running",
        "seen_at",
        "serving",
        "start_s",
        "starting",
        "starts",
        "stuck_at",
        "talks",
        "unfit_until",
        "waiting",
        "zygote",
    )

    def __init__(self, need: Need) -> None:
        self.need = need
        self.entries: dict[int, Entry] = {}
        self.free: list[Entry] = []
        """Those with a place, the most recently freed last: a few stay hot, the rest can expire."""
        self.queueing: dict[int, Entry] = {}
        """Those in which leases may queue."""
        self.talks = False
        """Its calls write output, which is told apart by what is read between two of them: none queues."""
        self.waiting: OrderedDict[int, None] = OrderedDict()
        self.running = 0
        """Leases granted and not yet returned."""
        self.serving = 0
        """Sandboxes that are ready and not retired."""
        self.starting = 0
        """Places of those being started."""
        self.committed_mb = 0
        """Memory of its sandboxes, those that still die not counted."""
        self.blocked_at = NEVER
        """Since when its turn waits for room."""
        self.run_s = -1.0
        self.cpu_s = 0.0
        self.start_s = START_COST_S
        """What making a sandbox takes, a moving average."""
        self.load_s = 0.0
        """What importing the function's code took when it was last done, or becoming its zygote."""
        self.import_s = 0.0
        """The same, of imports alone."""
        self.rest_s = -1.0
        """The same, after it had started from its packages' zygote; negative: it has not."""
        self.imports: frozenset[str] = frozenset()
        """The modules of its packages that it names, as one of its sandboxes said."""
        self.never_shares = False
        """It does not start from what was imported for several: it says so when it could."""
        self.zygote: Zygote | None = None
        """What its next sandbox starts from, once it is made."""
        self.attempts = 0
        """To make one that the machine may have spoilt, in a row."""
        self.unfit_until = NEVER
        """No zygote is made for it before."""
        self.starts = Lately()
        self.habit = Habit()
        self.moved_at = NEVER
        """When its line last moved, or began."""
        self.seen_at = self.stuck_at = NEVER
        """When it had last moved as it was last looked at, and when it stood still."""
        self.last_asked = NEVER
        self.prewarm_failed = False

    def __repr__(self) -> str:
        return f"<Group {self.need.function} {len(self.entries)} sandboxes, {len(self.waiting)} waiting>"

    def turn(self) -> tuple[int, bool]:
        """The least goes first; among equals the one that was promised room, then in order of turns."""
        return self.committed_mb, self.blocked_at == NEVER

    @property
    def lacks_mb(self) -> int:
        """What room the next of its line takes: of one that is to be started, or of one that rests."""
        return self.free[-1].memory_mb - self.free[-1].held_mb if self.free else self.need.memory_mb

    def wants_room(self) -> bool:
        """Whether its line waits for a start, or for one that rests to count with its limit again."""
        return bool(self.free and self.free[-1].rests) or self.wants_start()

    def wants_start(self) -> bool:
        return len(self.waiting) > self.starting and not self.is_full() and self.is_worth_starting()

    def is_full(self) -> bool:
        """Whether one more sandbox could serve more leases at a time than the function allows."""
        return 0 < self.need.at_most <= len(self.entries) * self.need.places

    def is_worth_starting(self) -> bool:
        """Whether those in line would wait longer for the sandboxes that serve than for a new one.

        Reckoned with the time the function itself runs, not with how long leases are held: on a busy
        machine leases are held longer, and more sandboxes would make that worse. Where the reckoning
        is wrong because calls hang, the line does not move: then they are started one after another.
        """
        if not self.serving or self.run_s < 0:
            return True
        ahead_s = len(self.waiting) * self.run_s / (self.serving * self.need.places)
        return ahead_s >= START_COST_S or (self.stuck_at == self.moved_at and not self.starting)

    def look(self, now: float) -> None:
        """See whether its line stands still: in two looks, between which the node has read what came.

        By one alone a node that was itself kept away would take answers that it has not read for none.
        """
        if self.seen_at == self.moved_at and now - self.moved_at >= STUCK_S:
            self.stuck_at = self.moved_at
        self.seen_at = self.moved_at

    def place(self) -> Entry | None:
        """Where one more lease goes at once: behind others if soon, on a free one, else behind others."""
        if self.running and self.queueing and (entry := self.queue_for(WAKE_S)):
            return entry
        if self.free:
            return self.free[-1]
        return self.place_behind() if self.queueing else None

    def place_behind(self) -> Entry | None:
        """A busy sandbox whose queue has a place."""
        return self.queue_for(LONGEST_QUEUE_S)

    def queue_for(self, wait_s: float) -> Entry | None:
        """A busy sandbox in which one more lease would wait for at most `wait_s` of processor time.

        Of processor time, because on a busy machine any run takes longer, and another sandbox as well.
        """
        if not 0 <= self.run_s < SHORT_S or self.talks:
            return None
        depth = self.need.depth
        cpu_s = self.cpu_s if self.cpu_s > LEAST_CPU_S else LEAST_CPU_S
        for entry in self.queueing.values():
            if 0 < entry.leases <= depth and entry.leases * cpu_s <= wait_s:
                return entry
        return None

    def came(self, now: float) -> None:
        """A call has come and no other is here; after a pause, that is part of the function's habit."""
        if now - self.moved_at >= PAUSE_S and self.moved_at > NEVER:
            self.habit.paused(now - self.moved_at)

    def saves_s(self, now: float) -> float:
        """Time of imports that a zygote would have saved its starts lately, or has."""
        return self.starts.count(now) * self.import_s

    def started(self, start_s: float) -> None:
        """A start took so long."""
        self.start_s += NEWEST_WEIGHT * (start_s - self.start_s)

    def learn(self, run_s: float, cpu_s: float) -> None:
        if self.run_s < 0:
            self.run_s, self.cpu_s = run_s, cpu_s
        else:
            self.run_s += NEWEST_WEIGHT * (run_s - self.run_s)
            self.cpu_s += NEWEST_WEIGHT * (cpu_s - self.cpu_s)
