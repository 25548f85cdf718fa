"""How many calls of one function run at a time where calls in line compute more than the processors can.

Beyond what keeps the processors busy, each further one only makes all slower, those of other functions too.
Judged by the processor time of calls that ended, not by how long they took: a call that sleeps and a call
that waits for a processor look the same by the clock.
"""

from __future__ import annotations

from collections.abc import Collection

from stoker.pool.groups import UNLIMITED, Group

BUSY = 0.7
"""Of the processors' time in functions: the rest goes into getting calls to them."""
RUNNING_EACH = 2
"""Calls running for each processor that keep it busy: one computes, one comes or goes."""
NEWEST_WEIGHT = 0.3
"""Of the newest look in the moving average."""
TIGHTER, LOOSER = 0.7, 1.3
"""What a look makes of the number that may run at a time: from a hundred to four in ten looks."""


class Pace:
    """Looks at all groups now and then and sets their `limit`."""

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._used = 0.0
        """Processors that the calls of those in line keep busy, a moving average."""

    def __repr__(self) -> str:
        return f"<Pace {self._used:.2f} of {self._processors} processors used>"

    def look(self, groups: Collection[Group], passed_s: float) -> None:
        used_s = 0.0
        for group in groups:
            used_s += group.cpu_total_s - group.cpu_seen_s if group.waiting else 0.0
            group.cpu_seen_s = group.cpu_total_s
        self._used += NEWEST_WEIGHT * (used_s / passed_s - self._used)
        is_busy = self._used >= BUSY * self._processors
        for group in groups:
            group.limit = self._limit(group, is_busy) if group.waiting else UNLIMITED

    def _limit(self, group: Group, is_busy: bool) -> int:
        if not is_busy:
            return min(UNLIMITED, int(group.limit * LOOSER) + 1)
        return max(RUNNING_EACH * self._processors, int(min(group.limit, group.running) * TIGHTER))
