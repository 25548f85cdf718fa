"""Has the kernel forget the connections of addresses that nobody has any more, in a process of its own.

That takes the kernel tens of milliseconds, in which the helper would make no sandbox. So a child does it for
all that are to be forgotten by then, and at most once a second.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from ipaddress import IPv4Address

from stoker.linux.syscalls import PR_SET_PDEATHSIG, close_range, pidfd_open, prctl
from stoker.linux.tracking import forget_connections
from stoker.sandboxes.lean.egress.clerk import Watch

EVERY_S = 1.0


class Forgetting:
    """One child at a time."""

    def __init__(self, watch: Watch, done: Callable[[list[IPv4Address]], None]) -> None:
        self._watch = watch
        self._done = done
        self._waiting: list[IPv4Address] = []
        self._under_way: list[IPv4Address] = []
        self._pid = 0
        self._pidfd = -1

    def __repr__(self) -> str:
        return f"<Forgetting {len(self._under_way)}+{len(self._waiting)} addresses>"

    @property
    def pids(self) -> set[int]:
        return {self._pid} if self._pid else set()

    def add(self, address: IPv4Address) -> None:
        self._waiting.append(address)
        if not self._pid:
            self._start()

    def _start(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._pid = os.fork()
        if self._pid == 0:
            _forget(self._under_way)
        self._pidfd = pidfd_open(self._pid)
        self._watch(self._pidfd, self._end)

    def _end(self) -> None:
        """What could not be forgotten is tried again."""
        is_done = os.waitpid(self._pid, 0)[1] == 0
        self._watch(self._pidfd, None)
        os.close(self._pidfd)
        self._pid, self._pidfd = 0, -1
        under_way, self._under_way = self._under_way, []
        if is_done:
            self._done(under_way)
        else:
            self._waiting += under_way
        if self._waiting:
            self._start()

    def close(self) -> None:
        """Forget all that is left to be forgotten. Raises `OSError`."""
        left = [*self._under_way, *self._waiting]
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._waiting = []
            os.waitpid(self._pid, 0)
            self._watch(self._pidfd, None)
            os.close(self._pidfd)
            self._pid, self._pidfd = 0, -1
        if left:
            forget_connections(left)


def _forget(addresses: list[IPv4Address]) -> None:
    """The child's life."""
    code = 1
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        close_range(3)
        forget_connections(addresses)
        code = 0
    finally:
        time.sleep(EVERY_S)
        os._exit(code)
