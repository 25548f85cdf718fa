"""All processes below one that reaps them: who they are, what they use, and how to end every one of them.

Whoever loses its parent becomes the reaper's child (PR_SET_CHILD_SUBREAPER, or it is the first of a pid
namespace), a daemon that called `setsid` and forked twice too. So the tree below it is all there is.
"""

from __future__ import annotations

import os
import signal
import time

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_RETRY_S = 0.001  # between two looks for processes that are about to die


def list_family(head: int = 0) -> list[int]:
    """Everything below a process, this one unless another is named; parents before their children."""
    found: list[int] = []
    unseen = _children(head or os.getpid())
    while unseen:
        found.extend(unseen)
        unseen = [child for parent in unseen for child in _children(parent)]
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children.extend(map(int, file.read().split()))
    except OSError:
        """It ended while we looked; its children are ours by now, or the next look finds them."""
    return children


def measure(pid: int) -> tuple[float, int]:
    """CPU seconds, those of its ended children included, and resident bytes; zeros when it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    return sum(map(int, fields[11:15])) * TICK_S, int(fields[21]) * PAGE_BYTES


def spent(head: int) -> tuple[float, int]:
    """CPU seconds of everything below a process, and what was resident in the largest of them."""
    used = [measure(pid) for pid in list_family(head)]
    reaped_s = measure_reaped(head)  # who ended without a parent was reaped by the head
    return reaped_s + sum(cpu for cpu, _ in used), max((memory for _, memory in used), default=0)


def measure_reaped(pid: int) -> float:
    """CPU seconds of its ended children alone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[13:15])) * TICK_S
    except OSError:
        return 0.0


def find_excess(pids: list[int], allowed_bytes: int) -> int | None:
    """The largest of these processes, if all together hold more than that; None when they do not.

    HOLDS: what is resident in each, shared pages and all, has been found to be more: this look is dear.
    """
    shares = {pid: measure_own_share(pid) for pid in pids}
    return max(pids, key=lambda pid: shares[pid]) if pids and sum(shares.values()) > allowed_bytes else None


def measure_own_share(pid: int) -> int:
    """Resident bytes, those shared with other processes only in part."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            lines = dict(line.split()[:2] for line in file.readlines()[1:])
    except (OSError, ValueError):
        return 0
    return int(lines.get("Pss:", 0)) * 1024


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        """It has ended."""


def kill_family() -> None:
    """End everything below this process and reap it; returns when nothing is left.

    Stopped first, then killed: what forks faster than it can be listed stops forking that way.
    """
    stopped: set[int] = set()
    while alive := set(list_family()) - stopped:
        for pid in alive:
            kill(pid, signal.SIGSTOP)
        stopped |= alive
    while _reap_all():
        for pid in list_family():
            kill(pid)
        time.sleep(_RETRY_S)


def _reap_all() -> bool:
    """Reap those that have ended; whether there are children still."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            """One more."""
    except ChildProcessError:
        return False
    return True
