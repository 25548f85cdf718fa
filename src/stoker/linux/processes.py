"""Processes by descriptor: a pid can be given to another process, a pidfd cannot."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Collection
from typing import NamedTuple

from stoker.linux.syscalls import PR_SET_CHILD_SUBREAPER, pidfd_open, pidfd_send_signal, prctl


def kill(pidfd: int) -> None:
    """End the process now; nothing happens when it has ended already."""
    try:
        pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_and_wait(pids: Collection[int], give_up: float) -> list[int]:
    """End processes; those that have not ended at `give_up` (monotonic), which wait in the kernel."""
    waiting = select.poll()
    unended = {}
    try:
        for pid in pids:
            try:
                pidfd = pidfd_open(pid)
            except ProcessLookupError:
                continue
            unended[pidfd] = pid
            waiting.register(pidfd, select.POLLIN)
            kill(pidfd)
        while unended and (ended := waiting.poll(max(0.0, give_up - time.monotonic()) * 1000)):
            for pidfd, _ in ended:
                waiting.unregister(pidfd)
                os.close(pidfd)
                del unended[pidfd]
        return list(unended.values())
    finally:
        for pidfd in unended:
            os.close(pidfd)


def user_of(pidfd: int) -> int:
    """The user whose rights the process has now. Raises `ProcessLookupError` when it has ended."""
    pid = _fields(f"/proc/self/fdinfo/{pidfd}", "Pid:")[0]
    if pid <= 0:
        raise ProcessLookupError(errno.ESRCH, "the process has ended")
    return _fields(f"/proc/{pid}/status", "Uid:")[1]


def _fields(path: str, name: str) -> list[int]:
    with open(path) as file:
        return next(list(map(int, line.split()[1:])) for line in file if line.startswith(name))


def describe(pid: int) -> str:
    """`process 4711 (python3, state D)`, as far as it can be told."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({name}, state {rest.split()[0]})"


def take_name(name: str) -> None:
    """What lists of processes call this one: at most 15 characters."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def heed_all_signals() -> None:
    """Have every signal do what it does by itself, whatever Python or who started us ignores or blocks."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)


def become_reaper() -> None:
    """Whoever below this process loses its parent becomes its child from here on."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def children() -> set[int]:
    """Every child of this process, ended ones that were not waited for among them. HOLDS: one thread."""
    with open("/proc/thread-self/children") as file:
        return set(map(int, file.read().split()))


def end_children(patience_s: float) -> list[int]:
    """Kill and wait for every child, and whoever becomes one by that; those that do not end."""
    give_up = time.monotonic() + patience_s
    while pids := children():
        left = kill_and_wait(pids, give_up)
        for pid in pids.difference(left):
            os.waitpid(pid, 0)
        if left:
            return left
    return []


class Reaped(NamedTuple):
    """How a child ended; what it used, and everything that it, and who had it for a reaper, waited for."""

    status: int
    cpu_ns: int
    peak_bytes: int
    """What was resident in the largest of them."""


def reap(pid: int) -> Reaped | None:
    """A child that has ended, once; None while it lives."""
    reaped, status, used = os.wait4(pid, os.WNOHANG)
    if not reaped:
        return None
    return Reaped(status, int((used.ru_utime + used.ru_stime) * 1e9), used.ru_maxrss * 1024)
