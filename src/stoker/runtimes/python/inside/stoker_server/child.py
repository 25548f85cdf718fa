"""One call's own process: how it is forked, lives and is ended.

It is forked before its call comes, and then touches what every call touches: the pages are copied while
nobody waits. The call reaches it through a pipe of its own, and its one answer leaves through another;
descriptors 1 and 2 are pipes as well. It has no way to the channel, so whatever it says can be checked.
"""

from __future__ import annotations

import os
import signal

from . import leaving, randomness, streams
from .channel import CALL, Channel, EndOfStream, write_frame
from .function import Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Iterable


class Child:
    """The process as its parent sees it."""

    def __init__(self, pid: int, order: int, answer: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.number = 0
        self.answer = answer
        self.output = {1: stdout, 2: stderr}
        self.unread = {answer, stdout, stderr}
        """Those of its pipes that are open still. HOLDS: the number of a closed one may be another's."""
        self.received = bytearray()
        self.is_settled = False
        self.is_cancelled = False
        self.spent_ns = 0
        """What it had used when it was ended for that."""
        self._order = order

    def order(self, number: int, payload: bytes) -> None:
        """Hand it its call."""
        self.number = number
        try:
            Channel(self._order).send(write_frame(CALL, number, payload))
        except EndOfStream:
            """It was killed while it waited; its end will be told as the call's."""
        self.close_order()

    def close_order(self) -> None:
        os.close(self._order)

    def kill(self) -> None:
        """End it and its group. HOLDS: it has not been reaped, so the number is still its own."""
        for kill in (os.kill, os.killpg):
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                """It does not lead a group yet."""


def fork(function: Function, not_its: Iterable[int]) -> Child:
    """Fork a process that waits for one call; it closes what is not its. Raises OSError."""
    pipes: list[tuple[int, int]] = []
    try:
        pipes.extend(os.pipe2(os.O_CLOEXEC) for _ in range(4))
        pid = os.fork()
    except OSError:
        for pipe in pipes:
            _close(pipe)
        raise
    (order, ordering), *outward = pipes
    readings, writings = [reading for reading, _ in outward], [writing for _, writing in outward]
    if pid == 0:
        with leaving.ProcessEnds():
            _close((ordering, *readings, *not_its))
            _live(function, order, *writings)
    _close((order, *writings))
    for reading in readings:
        os.set_blocking(reading, False)
    return Child(pid, ordering, *readings)


def _live(function: Function, order: int, answer: int, stdout: int, stderr: int) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream, pipe in ((1, stdout), (2, stderr)):
        os.dup2(pipe, stream)
        os.close(pipe)
    randomness.refresh()
    if function.cpu_ms:
        from . import spending

        spending.bound_this_process(function.cpu_ms)
    function.rehearse()
    _, number, payload = Channel(order).receive()
    os.close(order)
    frame = function.answer(number, payload)
    streams.flush()
    Channel(answer).send(frame)
    os._exit(0)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
