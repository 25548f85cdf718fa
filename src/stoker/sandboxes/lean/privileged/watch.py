"""Looks at what sandboxes hold in memory where no cgroup limits it, and ends the largest process of one
that holds too much.

Fifty times a second at one that is at work, five times at one that was found as it had been left. What is
in scratch space counts too: it is memory. It is a limit for mistakes, not for attacks: between two looks
much can be taken, and memory that is mapped by nobody (a `memfd`) is not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from stoker.linux.family import find_excess, list_family, measure
from stoker.linux.processes import kill
from stoker.linux.syscalls import pidfd_open
from stoker.sandboxes.lean.privileged.loop import Loop
from stoker.sandboxes.lean.privileged.sandbox import Sandbox

BUSY_S, IDLE_S = 0.02, 0.2
SCRATCH = ("tmp", "dev/shm")


class Watch:
    """The sandboxes that are looked at; a timer runs only while there is one."""

    def __init__(self, loop: Loop, tell: Callable[[Sandbox], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._due: dict[Sandbox, float] = {}
        self._last: dict[Sandbox, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<Watch of {len(self._due)}>"

    def add(self, sandbox: Sandbox) -> None:
        if not self._due:
            self._loop.tick(BUSY_S, self._look)
        self._due[sandbox] = 0.0

    def drop(self, sandbox: Sandbox) -> None:
        """Idempotent."""
        self._last.pop(sandbox, None)
        if self._due.pop(sandbox, None) is not None and not self._due:
            self._loop.tick(None, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        for sandbox, due in self._due.items():
            if due <= now:
                found = self._look_at(sandbox)
                self._due[sandbox] = now + (IDLE_S if found == self._last.get(sandbox) else 0.0)
                self._last[sandbox] = found

    def _look_at(self, sandbox: Sandbox) -> tuple[float, int]:
        """Kill its largest process if all together hold too much; what they use now."""
        pids = list_family(sandbox.pid)
        used = [measure(pid) for pid in pids]
        scratch = sum(_held_in(f"/proc/{sandbox.pid}/root/{name}") for name in SCRATCH)
        held = sum(memory for _, memory in used) + scratch
        if held > sandbox.order.memory_bytes:
            largest = find_excess(pids, sandbox.order.memory_bytes - scratch)
            if largest is not None:
                self._end(sandbox, largest)
        return sum(cpu for cpu, _ in used), held

    def _end(self, sandbox: Sandbox, pid: int) -> None:
        """HOLDS: the number is looked for again once the descriptor is held, or it could be a stranger's."""
        try:
            pidfd = pidfd_open(pid)
        except ProcessLookupError:
            return
        if pid in list_family(sandbox.pid):
            sandbox.oom_kills += 1
            self._tell(sandbox)  # before it is done: who hears of the death can ask for its reason
            kill(pidfd)
        os.close(pidfd)


def _held_in(folder: str) -> int:
    """Bytes in a file system that is memory; 0 when its sandbox has gone."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return 0
    return (state.f_blocks - state.f_bfree) * state.f_frsize
