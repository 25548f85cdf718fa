"""The node's end of the socket to the helper: packets out, at once or when there is room, and packets in."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from typing import Protocol

from stoker.sandboxes.lean.packets import receive, send, unpack

NOT_NOW = (errno.EAGAIN, errno.ETOOMANYREFS)
"""No room in the socket; or as many of our descriptors are under way as one user may have there."""


class Listener(Protocol):
    """Who hears what the helper says."""

    def heard(self, kind: int, number: int, body: bytes, descriptors: list[int]) -> None: ...
    def lost(self) -> None:
        """The helper has ended; nothing more comes."""


class Link:
    """One conversation, in the event loop it is opened in."""

    def __init__(self, end: socket.socket, listener: Listener) -> None:
        self._end = end
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.is_open = True
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self.read)

    def __repr__(self) -> str:
        return f"<Link {'open' if self.is_open else 'closed'}, {len(self._waiting)} packets waiting>"

    def send(self, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Say something. The descriptors stay the caller's; nothing is sent once the link is closed."""
        if not self.is_open:
            return
        if self._waiting or not self._try(packet, descriptors):
            self._waiting.append((packet, tuple(map(os.dup, descriptors))))
            self._loop.add_writer(self._end.fileno(), self._send_waiting)

    def close(self) -> None:
        """Idempotent; the listener hears nothing of it."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        self._end.close()
        while self._waiting:
            _close_all(self._waiting.popleft()[1])

    def _try(self, packet: bytes, descriptors: tuple[int, ...]) -> bool:
        """Whether it needs no further thought: sent, or the helper has ended (which the reader will hear)."""
        try:
            send(self._end, packet, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            if error.errno not in NOT_NOW:
                raise
            return False
        return True

    def _send_waiting(self) -> None:
        while self._waiting and self._try(*self._waiting[0]):
            _close_all(self._waiting.popleft()[1])
        if not self._waiting:
            self._loop.remove_writer(self._end.fileno())

    def read(self) -> None:
        """Hear everything that has been said."""
        while self.is_open:
            try:
                packet, descriptors = receive(self._end)
            except BlockingIOError:
                return
            if not packet:
                self.close()
                self._listener.lost()
                return
            self._listener.heard(*unpack(packet), descriptors)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
