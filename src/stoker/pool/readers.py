"""Reads many pipes: one descriptor for the event loop, however many there are.

A descriptor of the loop's own takes it some twelve system calls from first to last, here it is two: that
matters for sandboxes that live for one call.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Readers:
    """Belongs to the event loop that it is made in."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._read)

    def __repr__(self) -> str:
        return f"<Readers of {len(self._calls)} pipes>"

    def add(self, fd: int, call: Callable[[int], None]) -> None:
        """Call with `fd` whenever it has something to read or is at its end."""
        self._calls[fd] = call
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Idempotent. HOLDS: before it is closed."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _read(self) -> None:
        for fd, _ in self._epoll.poll(0):
            call = self._calls.get(fd)  # None: gone since an earlier call of this round
            if call is not None:
                call(fd)

    def close(self) -> None:
        """Idempotent."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
