"""How long idle sandboxes are kept, which go first when room is needed, what is started before a call.

Theory. A policy is one row of `POLICIES`: two pure functions. `rank` orders idle sandboxes, the lowest
goes first when room is needed. `window` says when, counted from the end of a function's last call, a
sandbox of it is worth its room: outside of it an idle one ends, and where it opens later than at once,
one is started when it opens. The plan alone knows the time, asks and obeys.

* `fixed` keeps for a time, the longest idle goes first.
* `lru` keeps until room is needed (or for `FORGET_S`), the longest idle goes first.
* `greedy_dual` keeps until room is needed; what is often used, dear to start and small stays. Source:
  Fuerst and Sharma, FaasCache (ASPLOS 2021). `age` is the rank of the last one that went: what has not
  been used since then falls behind whatever is used now.
* `histogram` learns after how long a pause calls come back, ends what nobody will want soon and starts
  it again before the expected call. Source: Shahrad et al., Serverless in the Wild (USENIX ATC 2020).

Which one is the default, and by which numbers: docs/decisions/0004.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

FIXED_KEEP_S = 600.0
PAUSE_S: Final = 1.0
"""A call that comes sooner after the one before belongs to the same visit: nothing was decided between."""
FORGET_S = 4 * 3600.0
"""Pauses longer than this are not expected; what is known of a function is forgotten after it."""
STEP = 1.2
"""Each class of pauses reaches this much further than the one before."""
CLASSES = tuple(
    itertools.takewhile(lambda end: end < FORGET_S * STEP, (PAUSE_S * STEP**n for n in itertools.count(1)))
)
"""Where each class of pauses ends, in seconds."""
LEAST_PAUSES = 8
"""Fewer tell nothing. This and the three below are from the paper, or tried in `bench/replay.py`."""
HEAD = 0.05
"""The share of pauses that are shorter than the window's opening; it closes after the longest."""
MARGIN = 0.15
"""So much earlier it opens and later it closes."""
WORTH_ENDING_S = 10.0
"""A sandbox is ended until the window opens only if it opens later than this."""


class Window(NamedTuple):
    """When a sandbox of a function is worth its room, counted from the end of its last call."""

    opens_s: float
    closes_s: float


class Habit:
    """After how long a pause the calls of one function come back, in classes that grow with the pause."""

    __slots__ = ("_window", "counts")

    def __init__(self) -> None:
        self.counts = [0] * (len(CLASSES) + 1)
        self._window: Window | None = None

    def __repr__(self) -> str:
        return f"<Habit of {sum(self.counts)} pauses>"

    def paused(self, pause_s: float) -> None:
        self.counts[bisect.bisect_right(CLASSES, pause_s)] += 1
        self._window = None

    def expected(self) -> Window | None:
        """The window that most pauses end in; None when too little is known or too many last too long."""
        if self._window is None:
            self._window = self._reckon()
        return self._window if self._window.closes_s < FORGET_S else None

    def _reckon(self) -> Window:
        known = sum(self.counts)
        if known < LEAST_PAUSES or self.counts[-1]:
            return Window(0.0, math.inf)
        sums = list(itertools.accumulate(self.counts))
        head = bisect.bisect_left(sums, max(1, known * HEAD))
        tail = bisect.bisect_left(sums, known)
        opens = CLASSES[head] / STEP * (1 - MARGIN)
        return Window(opens if opens >= WORTH_ENDING_S else 0.0, CLASSES[tail] * (1 + MARGIN))


class Kept(Protocol):
    """What a policy sees of an idle sandbox."""

    idle_since: float
    served: int
    age: float
    """The plan's age when it became idle."""

    @property
    def held_mb(self) -> int:
        """What comes free when it goes."""

    @property
    def cost_s(self) -> float:
        """What starting one of its function takes until it can serve."""


One = TypeVar("One", bound=Kept)


class Policy(NamedTuple):
    """One way to keep."""

    rank: Callable[[Kept], float]
    window: Callable[[Habit], Window]
    expects: bool = False
    """Its window may open later than at once."""


def by_last_use(one: Kept) -> float:
    return one.idle_since


def by_worth(one: Kept) -> float:
    """Seconds of starting that a megabyte of it saves, on top of its age.

    Of the frequency the logarithm: taken as it is, what was once called often stays for too long.
    """
    return one.age + math.log2(1 + one.served) * one.cost_s / one.held_mb


def for_a_time(habit: Habit) -> Window:
    return Window(0.0, FIXED_KEEP_S)


def until_room_is_needed(habit: Habit) -> Window:
    return Window(0.0, FORGET_S)


def when_expected(habit: Habit) -> Window:
    return habit.expected() or Window(0.0, FIXED_KEEP_S)


POLICIES = {
    "fixed": Policy(by_last_use, for_a_time),
    "lru": Policy(by_last_use, until_room_is_needed),
    "greedy_dual": Policy(by_worth, until_room_is_needed),
    "histogram": Policy(by_worth, when_expected, expects=True),
}


def victims(idle: Sequence[One], missing_mb: int, rank: Callable[[One], float]) -> list[One]:
    """Those that go so that `missing_mb` come free, by rank, none that is not needed; [] if all do not do."""
    chosen: list[One] = []
    if sum(one.held_mb for one in idle) < missing_mb:
        return chosen
    for one in sorted(idle, key=rank):
        if missing_mb <= 0:
            break
        chosen.append(one)
        missing_mb -= one.held_mb
    spared = [one for one in chosen if missing_mb + one.held_mb <= 0]
    for one in sorted(spared, key=rank, reverse=True):
        if missing_mb + one.held_mb <= 0:
            chosen.remove(one)
            missing_mb += one.held_mb
    return chosen
