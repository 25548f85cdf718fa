"""Calls one after another, in the main thread of this process."""

from __future__ import annotations

import sys

from . import leaving, streams
from .channel import CALL, CANCEL, QUEUED, Channel, take_permit
from .function import Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any


class OwnLoop:
    """Runs awaitables on one event loop that lives as long as the process.

    One loop, because what a function keeps between calls (a client session, a lock) belongs to one.
    Before Python 3.10, what a module makes at its import is bound to the main thread's default loop.
    """

    def __init__(self, is_main: bool) -> None:
        self._loop: Any = None
        self._takes_default = is_main and sys.version_info < (3, 10)

    def wait(self, awaitable: Any) -> Any:
        if self._loop is None:
            import asyncio

            if self._takes_default:
                self._loop = asyncio.get_event_loop_policy().get_event_loop()
            else:
                self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(awaitable)


def serve_calls(channel: Channel, function: Function) -> None:
    function.wait = OwnLoop(is_main=True).wait
    while True:
        kind, number, payload = channel.receive()
        if kind == CALL or (kind == QUEUED and take_permit()):
            frame = function.answer(number, payload)
            streams.flush()
            channel.send(frame)
        elif kind not in (QUEUED, CANCEL):  # nothing to cancel: frames are read between calls only
            sys.exit(leaving.PROTOCOL_ERROR)
