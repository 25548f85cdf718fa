"""Several calls of an `async` handler at once, as tasks of one event loop in the main thread."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import time

from . import leaving, routing
from .channel import CALL, CANCEL, Channel, write_error
from .failures import find_errno
from .function import BadEvent, Context, Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def fits(handler: Callable[..., Any]) -> bool:
    """Whether calling the handler gives a coroutine, as far as can be told without calling it."""
    return inspect.iscoroutinefunction(handler)


def serve_calls(channel: Channel, function: Function, concurrency: int) -> None:
    """Serve calls; how many there are at once is up to the node."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    calls = _Calls(channel, function, loop)
    loop.call_soon(calls.take_frames)  # those that came together with LOAD
    loop.add_reader(channel.fd, calls.read)
    loop.run_forever()


class _Calls:
    """The calls in flight. CPU time is not told: tasks share one thread."""

    def __init__(self, channel: Channel, function: Function, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._function = function
        self._loop = loop
        self._running: dict[int, asyncio.Task[None]] = {}

    def read(self) -> None:
        with leaving.ProcessFails():
            self._channel.fill()
            self.take_frames()

    def take_frames(self) -> None:
        with leaving.ProcessFails():
            frame = self._channel.take()
            while frame is not None:
                self._receive(*frame)
                frame = self._channel.take()

    def _receive(self, kind: int, number: int, payload: bytes) -> None:
        if kind == CALL:
            context = contextvars.copy_context()
            context.run(self._start, number, payload)
        elif kind == CANCEL:
            if number in self._running:
                self._running[number].cancel()
        else:
            sys.exit(leaving.PROTOCOL_ERROR)

    def _start(self, number: int, payload: bytes) -> None:
        routing.current_output.set(routing.CallOutput(self._channel, number))
        self._running[number] = self._loop.create_task(self._serve(number, payload))

    async def _serve(self, number: int, payload: bytes) -> None:
        output = routing.current_output.get()
        assert output is not None
        with leaving.ProcessFails():
            try:
                frame = await self._answer(number, payload)
            finally:
                output.close()
                self._running.pop(number, None)
            self._channel.send(frame)

    async def _answer(self, number: int, payload: bytes) -> bytes:
        function = self._function
        try:
            event = function.read_event(payload)
        except BadEvent as error:
            return write_error(number, 0, 0, ("BadEvent", str(error), ""))
        began_ns = time.monotonic_ns()
        try:
            value = await function.handler(event, Context(function, payload, began_ns))
        except SystemExit:
            raise
        except BaseException as error:
            told = function.teller.tell(error)
            if isinstance(error, asyncio.CancelledError):
                told = ("Cancelled", "the caller has left", "")
            return write_error(number, time.monotonic_ns() - began_ns, 0, told, find_errno(error))
        return function.write_value(number, time.monotonic_ns() - began_ns, 0, value)
