"""How many spares there should be: a pure policy, without a clock and without any I/O.

Theory. Cold starts stand in a line for who makes sandboxes, `makers` at a time, each in `make_s`. The
longest that line has been is how many spares would have let nobody wait, and no more would have been
used. So that is how many are kept, for as long as it may happen again: of the longest line half is
forgotten every `HALF_S`. Steady calls far apart have a line of one and keep the least there is to be; a
burst of fifty has one of fifty. Where more come than can be made the line would grow for ever; it counts
up to `MOST`, and helps nobody then: a spare is only work that was done before.

Spares are not free. What they hold counts against the memory of all sandboxes, in which they have what is
left by those that were asked for, up to a share (`pool.plan`); within it each kind gets one in turn,
the one asked for last first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST = 64
"""Of one kind."""
HALF_S = 20.0
WEIGHT = 0.2
"""Of the newest measurement in what making one is taken to cost."""


class Demand:
    """What cold starts of one kind there were, and what making a sandbox of it takes."""

    def __init__(self, make_s: float, makers: int) -> None:
        self.make_s = make_s
        self._makers = makers
        self._line = 0.0
        self._longest = 0.0
        self._at = 0.0

    def __repr__(self) -> str:
        return f"<Demand, longest line {self._longest:.1f}, {1000 * self.make_s:.1f} ms each>"

    def came(self, now: float) -> None:
        """Somebody has asked for one."""
        self._longest = self.longest(now)
        self._line = min(max(0.0, self._line - (now - self._at) * self._makers / self.make_s) + 1, MOST)
        self._longest = max(self._longest, self._line)
        self._at = now

    def took(self, make_s: float) -> None:
        """One was made, in so long."""
        self.make_s += WEIGHT * (make_s - self.make_s)

    def longest(self, now: float) -> float:
        """The longest line, as far as it is remembered."""
        return self._longest * math.exp2(-(now - self._at) / HALF_S)

    def wanted(self, now: float) -> int:
        """How many spares would let nobody wait."""
        return math.floor(self.longest(now) + 0.5)


def share(wanted: Sequence[int], each_mb: Sequence[int], room_mb: int) -> list[int]:
    """How many of each may be had in that memory: one of each in turn, the first ones first."""
    given = [0] * len(wanted)
    is_over = False
    while not is_over:
        is_over = True
        for index, mb in enumerate(each_mb):
            if given[index] < wanted[index] and mb <= room_mb:
                given[index] += 1
                room_mb -= mb
                is_over = False
    return given
