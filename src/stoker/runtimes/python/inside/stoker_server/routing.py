"""Output of several calls at once in one process: each call's own, as LOG frames.

Which call a write belongs to is a context variable: tasks inherit it, threads that the function starts
itself do not, and what no call owns goes to the sandbox's own descriptors.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from contextvars import ContextVar

from .channel import LOG, Channel, write_frame

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any

HELD_BYTES = 8192  # a line longer than this is sent in pieces

current_output: ContextVar[CallOutput | None] = ContextVar("current_output", default=None)


class LockedChannel(Channel):
    """A channel that several threads may send on."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.fd)
        self._buffer, self._parts = channel._buffer, channel._parts
        self._lock = threading.Lock()

    def send(self, data: bytes) -> None:
        with self._lock:
            super().send(data)


class CallOutput:
    """What one call has written and not yet sent."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number
        self._held = {1: bytearray(), 2: bytearray()}

    def write(self, stream: int, data: bytes) -> None:
        held = self._held[stream]
        held += data
        if b"\n" in data or len(held) > HELD_BYTES:
            self.flush(stream)

    def flush(self, stream: int) -> None:
        held = bytes(self._held[stream])
        if held:
            self._held[stream].clear()
            self._channel.send(write_frame(LOG, self._number, bytes((stream,)) + held))

    def close(self) -> None:
        self.flush(1)
        self.flush(2)


class _Bytes(io.RawIOBase):
    """What `sys.stdout.buffer` is."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        data = bytes(data)
        output = current_output.get()
        if output is None:
            return os.write(self._fd, data)
        output.write(self._fd, data)
        return len(data)

    def flush(self) -> None:
        output = current_output.get()
        if output is not None:
            output.flush(self._fd)


class _Text(io.TextIOBase):
    """What `sys.stdout` is: nothing is held here, so calls cannot mix."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, fd: int) -> None:
        self.buffer = _Bytes(fd)

    def fileno(self) -> int:
        return self.buffer.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.buffer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        self.buffer.flush()


def install() -> None:
    """Route what calls write from now on."""
    sys.stdout = _Text(1)
    sys.stderr = _Text(2)
