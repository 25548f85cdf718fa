"""Processes by descriptor: a pid can be given to another process, a pidfd cannot."""

from __future__ import annotations

import os
import signal

from stoker.linux.syscalls import pidfd_send_signal


def kill(pidfd: int) -> None:
    """End the process now; nothing happens when it has ended already."""
    try:
        pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def children() -> set[int]:
    """Every child of this process, ended ones that were not waited for among them. HOLDS: one thread."""
    with open("/proc/thread-self/children") as file:
        return set(map(int, file.read().split()))


def reap(pid: int) -> int | None:
    """The wait status of a child that has ended, once; None while it lives."""
    reaped, status = os.waitpid(pid, os.WNOHANG)
    return status if reaped else None
