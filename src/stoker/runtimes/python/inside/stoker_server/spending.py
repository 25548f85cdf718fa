"""Processor time of the calls in a shared sandbox, each a session of processes, as far as /proc tells.

The kernel counts a cgroup's time and a process's, and no session's: so everything is looked at, in a
sandbox a few files. What leaves its session is nobody's any more. Where this process is kept from looking,
the kernel's own bound holds for each single process, in whole seconds.
"""

from __future__ import annotations

import os
import resource

LOOK_MS = 50
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_SESSION, _TIMES = 3, slice(11, 15)  # fields behind the name; the times are its own and its reaped children's


def by_session() -> dict[int, int]:
    """Nanoseconds used by the processes of each session that live, and by what they have reaped."""
    used: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended, or is nobody's we may see
            session = int(fields[_SESSION])
            used[session] = used.get(session, 0) + sum(map(int, fields[_TIMES])) * _TICK_NS
    return used


def bound_this_process(cpu_ms: int) -> None:
    """Have the kernel kill this process, or a child of it, that goes on when it should long be ended."""
    whole_s = cpu_ms // 1000 + 2
    resource.setrlimit(resource.RLIMIT_CPU, (whole_s, whole_s))
