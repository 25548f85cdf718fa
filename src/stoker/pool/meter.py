"""What the calls of one sandbox use and which limits they meet, from counters that are read seldom.

Theory. A counter costs a microsecond to read and a warm call takes some seventy, so short calls share a
reading: the sandbox is looked at when a call ends that has run for `SAMPLE_S`, or when nobody has looked
for as long; and before a call, if nobody has looked for as long. The last reading before a call is its
baseline, and what has come since is its own, less what short calls in between said of themselves. An end
that is not well is always looked at.

Calls that run at the same time share every counter, and nobody can tell who moved it: of such a call is
said what its own process told, and no more.
"""

from __future__ import annotations

import errno
import time
from typing import Final

from stoker.sandboxes.contract import Sandbox
from stoker.types import Hits, LimitHit, Usage

SAMPLE_S: Final = 0.05
SAMPLE_MS: Final = SAMPLE_S * 1000
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOTHING_USED: Final = Usage()
NO_HITS: Final = Hits()


class Meter:
    """The counters of one sandbox, as the calls in it see them."""

    def __init__(self, sandbox: Sandbox, is_exact: bool) -> None:
        """`is_exact`: look before and after every call, because what it may use or send is counted."""
        self._sandbox = sandbox
        self._is_exact = is_exact
        self._last, self._before = NOTHING_USED, NOTHING_USED
        self._last_hits, self._hits_before = NO_HITS, NO_HITS
        self._read_at = self._began_at = self._ended_at = 0.0
        self._told_ms = 0.0
        self._unread = self._explained = 0
        """Calls that have ended since the last reading; kills for memory that have explained an end."""
        self._is_crowded = False
        self._was_certain = True
        self.was_read = False
        """Whether the end of the last call was looked at."""

    def __repr__(self) -> str:
        return f"<Meter of {self._sandbox!r}, {self._unread} calls since it was read>"

    def _read(self, now: float) -> None:
        self._last, self._last_hits = self._sandbox.usage(), self._sandbox.hits()
        self._read_at = now
        self._told_ms = 0.0
        self._unread = 0

    # A call begins

    def begin(self, now: float) -> None:
        """A call begins to run, alone."""
        self._began_at = now
        if self._is_crowded or self._is_exact or now - self._read_at >= SAMPLE_S:
            self._read(now)
            self._is_crowded = False

    def begin_first(self) -> None:
        """The first call begins, its code just loaded: what loading met is its own, what it used is not."""
        self._last = self._sandbox.usage()
        self._read_at = self._began_at = time.monotonic()

    def join(self) -> None:
        """A call begins beside others."""
        self._is_crowded = True
        self._began_at = time.monotonic()

    # While it runs

    def spent_s(self) -> float:
        """Processor time of the call that runs alone; 0 where that cannot be told."""
        if self._is_crowded:
            return 0.0
        return (self._own_cpu_ms(self._sandbox.usage(), self._last, self._told_ms) or 0.0) / 1000

    def was_killed_for_memory(self, kills_at_entry: int) -> bool:
        """Whether a process that ended by SIGKILL was killed for memory; each such kill explains one end."""
        kills = self._sandbox.hits().oom_kills
        known = max(kills_at_entry if self._is_crowded else self._last_hits.oom_kills, self._explained)
        if kills > known:
            self._explained = known + 1
        return kills > known

    # A call ends

    def end(self, cpu_ns: int, run_ms: float, is_well: bool) -> Usage:
        """What the call used; `cpu_ns`: as its own process told, negative where it did not."""
        is_whole = not is_well or self._is_exact or run_ms >= SAMPLE_MS
        self.was_read = is_whole or self._began_at - self._ended_at >= SAMPLE_S
        if not self.was_read:
            self._told_ms += cpu_ns / 1e6
            self._unread += 1
            return Usage(cpu_ms=cpu_ns / 1e6, memory_peak_bytes=self._last.memory_peak_bytes)
        self._before, self._hits_before, others_ms = self._last, self._last_hits, self._told_ms
        self._was_certain = not self._unread
        self._ended_at = time.monotonic()
        self._read(self._ended_at)
        return self._own(None if cpu_ns < 0 else cpu_ns / 1e6, others_ms, is_whole)

    def _own(self, told_ms: float | None, others_ms: float, is_whole: bool) -> Usage:
        """This call's part of what was read."""
        total, before = self._last, self._before
        if self._is_crowded:
            return Usage(cpu_ms=told_ms, memory_peak_bytes=total.memory_peak_bytes)
        counted_ms = self._own_cpu_ms(total, before, others_ms) if is_whole or told_ms is None else None
        return Usage(
            cpu_ms=told_ms if counted_ms is None else max(counted_ms, told_ms or 0.0),
            memory_peak_bytes=total.memory_peak_bytes,
            network_in_bytes=_difference(total.network_in_bytes, before.network_in_bytes),
            network_out_bytes=_difference(total.network_out_bytes, before.network_out_bytes),
        )

    @staticmethod
    def _own_cpu_ms(total: Usage, before: Usage, others_ms: float) -> float | None:
        if total.cpu_ms is None:
            return None
        return max(0.0, total.cpu_ms - (before.cpu_ms or 0.0) - others_ms)

    def met(self, error_number: int = 0) -> LimitHit | None:
        """The limit that the call has met for certain. HOLDS: `end` was just told of it, and has looked."""
        if error_number in FULL:
            return LimitHit.DISK
        if self._is_crowded:
            return None
        hits, before, is_certain = self._last_hits, self._hits_before, self._was_certain
        if is_certain and hits.oom_kills > before.oom_kills:
            return LimitHit.MEMORY
        if (is_certain or error_number == errno.EAGAIN) and hits.forks_refused > before.forks_refused:
            return LimitHit.PIDS
        if is_certain and hits.is_disk_full and not before.is_disk_full:
            return LimitHit.DISK
        return None


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None else max(0, now - (before or 0))
