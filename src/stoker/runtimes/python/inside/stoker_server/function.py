"""One loaded function: from the payload of a CALL to the frame that ends it."""

from __future__ import annotations

import json
import struct
import time

from .channel import write_error, write_result
from .failures import Teller, find_errno
from .loading import adapt, find_handler, prepare_process

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loading import Handler

_EVENT_AT = 20  # behind the invocation's id and the milliseconds left
_LEFT = struct.Struct("!I")
_PLAIN = frozenset((dict, list, str, int, float, bool, type(None)))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Made once, before any fork. They change no more.
_DECODER: Any = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class BadEvent(ValueError):
    """The event is not JSON."""


class Context:
    """What a handler is told of its call."""

    def __init__(self, function: Function, payload: bytes, now_ns: int) -> None:
        self.invocation_id = self.aws_request_id = payload[:16].hex()
        self.function_name = function.name
        self.memory_limit_in_mb = function.memory_mb
        self._deadline_ns = now_ns + _LEFT.unpack_from(payload, 16)[0] * 1_000_000

    def __repr__(self) -> str:
        return f"<call {self.invocation_id} of {self.function_name}>"

    def get_remaining_time_in_millis(self) -> int:
        """How long until this call is ended as timed out; never negative."""
        left_ns: int = self._deadline_ns - time.monotonic_ns()
        return max(0, left_ns // 1_000_000)


class Function:
    """A handler and how to call it.

    `wait` turns an awaitable into its value; `cpu_ns` is the clock that counts this call's CPU time.
    """

    def __init__(self, load: dict[str, Any]) -> None:
        self.name: str = load["function"]
        self.memory_mb: int = load["memory_mb"]
        self.result_bytes: int = load["result_bytes"]
        self.cpu_ms: int = load.get("cpu_ms", 0)
        self.wait: Callable[[Any], Any] = wait_on_new_loop
        self.cpu_ns: Callable[[], int] = time.process_time_ns
        self.teller = Teller(load["code"])
        prepare_process(load["code"], load["environment"])
        self.plain_handler = find_handler(load["code"], load["handler"], self.teller)
        self.handler: Handler = adapt(self.plain_handler)

    def answer(self, number: int, payload: bytes) -> bytes:
        """Run the handler; the frame that ends the call. Raises SystemExit when the handler does."""
        cpu_ns = self.cpu_ns()
        try:
            event = self.read_event(payload)
        except BadEvent as error:
            return write_error(number, 0, 0, ("BadEvent", str(error), ""))
        began_ns = time.monotonic_ns()
        try:
            value = self.handler(event, Context(self, payload, began_ns))
            if value.__class__ not in _PLAIN and hasattr(value, "__await__"):
                value = self.wait(value)
        except SystemExit:
            raise
        except BaseException as error:
            run_ns = time.monotonic_ns() - began_ns
            cpu_ns = self.cpu_ns() - cpu_ns
            return write_error(number, run_ns, cpu_ns, self.teller.tell(error), find_errno(error))
        run_ns = time.monotonic_ns() - began_ns
        return self.write_value(number, run_ns, self.cpu_ns() - cpu_ns, value)

    def rehearse(self) -> None:
        """Touch what every call touches, except the handler; after a fork that takes longer than a call."""
        payload = bytes(_EVENT_AT) + b'{"a":["b",1]}'
        event = self.read_event(payload)
        context = Context(self, payload, time.monotonic_ns())
        self.write_value(0, context.get_remaining_time_in_millis(), self.cpu_ns(), event)

    def read_event(self, payload: bytes) -> Any:
        """The event of a CALL; an empty one is an empty object. Raises BadEvent."""
        body = payload[_EVENT_AT:]
        if not body:
            return {}
        try:
            return self._decode(body.decode())
        except (ValueError, RecursionError) as error:
            raise BadEvent(f"the event is not JSON: {error}") from None

    def _decode(self, text: str) -> Any:
        """A JSON text. The decoder looks for white space around it first, and that takes longer."""
        try:
            event, end = _DECODER.scan_once(text, 0)
        except StopIteration:
            end = -1
        return event if end == len(text) else _DECODER.decode(text)

    def write_value(self, number: int, run_ns: int, cpu_ns: int, value: Any) -> bytes:
        """The frame for what the handler returned."""
        try:
            result = self._to_json(value)
        except Exception as error:
            problem = f"the handler's result is not JSON: {type(error).__name__}: {error}"
            return write_error(number, run_ns, cpu_ns, ("BadResult", problem, ""))
        if len(result) > self.result_bytes:
            problem = f"the result has {len(result)} bytes, more than the {self.result_bytes} allowed"
            return write_error(number, run_ns, cpu_ns, ("ResultTooLarge", problem, ""))
        return write_result(number, run_ns, cpu_ns, result)

    def _to_json(self, value: Any) -> bytes:
        try:
            return _ENCODER.encode(value).encode()
        except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
            return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def wait_on_new_loop(awaitable: Any) -> Any:
    """Run an awaitable on an event loop of its own."""
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.close()
