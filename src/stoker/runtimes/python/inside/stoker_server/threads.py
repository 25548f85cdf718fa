"""Several calls at once in one process, each in a thread.

The threads take turns at the channel: the one that reads a call answers it, and the next one reads. So
a call is never handed from thread to thread, which would cost more than answering it.
"""

from __future__ import annotations

import sys
import threading
import time

from . import leaving, routing
from .channel import CALL, CANCEL, Channel
from .function import Function
from .serial import OwnLoop

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any


def serve_calls(channel: Channel, function: Function, concurrency: int) -> None:
    turns = _Turns(routing.LockedChannel(channel), function)
    function.cpu_ns = time.thread_time_ns
    function.wait = turns.wait
    for number in range(concurrency):
        threading.Thread(target=turns.work, name=f"calls-{number}", daemon=True).start()
    threading.Event().wait()


class _Turns:
    def __init__(self, channel: Channel, function: Function) -> None:
        self._channel = channel
        self._function = function
        self._turn = threading.Lock()
        self._loops = threading.local()

    def wait(self, awaitable: Any) -> Any:
        if not hasattr(self._loops, "own"):
            self._loops.own = OwnLoop(is_main=False)
        return self._loops.own.wait(awaitable)

    def work(self) -> None:
        """One thread's life. What ends it ends the process."""
        with leaving.ProcessEnds():
            while True:
                with self._turn:
                    kind, number, payload = self._channel.receive()
                if kind == CALL:
                    self._answer(number, payload)
                elif kind != CANCEL:  # a thread cannot be made to end
                    sys.exit(leaving.PROTOCOL_ERROR)

    def _answer(self, number: int, payload: bytes) -> None:
        output = routing.CallOutput(self._channel, number)
        routing.current_output.set(output)
        try:
            frame = self._function.answer(number, payload)
        finally:
            output.close()
            routing.current_output.set(None)
        self._channel.send(frame)
