"""The program that runs in no sandbox at all: frames in, frames out, in the node's own process.

What a call does is what its event says. Any event that is not an object with `do` is echoed; else:

| `do` | what happens |
| --- | --- |
| `echo` | the result is `value` |
| `context` | the result is what the call came with: `id`, `budget_ms`, `function`, `mode` |
| `big` | the result is a string of `bytes` characters |
| `raise` | the call ends with the error `type`, `message` and `errno` |
| `print` | writes `stdout` and `stderr`, then the result is null |
| `flood` | writes to stdout without end, and never answers |
| `sleep` | answers null after `seconds` of the loop's clock |
| `hold` | answers null once the test calls `Backend.release(key)` |
| `hang` | never answers |
| `exit` | ends with exit code `code`, in mode `fork` after `spent_ms` of CPU time |
| `kill` | ends by `signal`, likewise |
| `oom` | ends because the kernel killed it for memory |
| `garbage` | says `bytes` of nonsense on the channel |
| `liar` | announces a frame of `length` bytes |
| `close` | closes the channel and stays alive |

Before that, an event may have met limits: so many `oom_kills` and `forks_refused`, `cpu_ms` spent, scratch
space that `is_disk_full`.

In mode `process`, ending means the sandbox's end; in mode `fork`, that of the call alone. What the
handler is called decides how loading goes: `fake.refuse`, `fake.never` and `fake.slow` (after
`Settings.load_s`) are not simply loaded; `fake.exit` ends the sandbox with exit code 1.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

import msgspec

LOAD, CALL, CANCEL, QUEUED = 0x01, 0x02, 0x03, 0x05
HELLO, LOADED, RESULT, ERROR, LOG, EXITED = 0x81, 0x82, 0x83, 0x84, 0x85, 0x87

_HEADER = struct.Struct("!IBI")
_NOTHING_USED = bytes(16)
RUN_NS, CPU_NS = 2_000_000, 1_000_000
SHORT_NS = 10_000  # what a call of `fake.short` is said to have run
FLOOD = b"x" * 4095 + b"\n"


class Body(Protocol):
    """What the program can do to the sandbox it is said to run in."""

    load_s: float

    def take_permit(self) -> bool: ...
    def write(self, stream: int, data: bytes) -> None: ...
    def flood(self) -> None: ...
    def hold(self, key: str, go_on: Callable[[], None]) -> None: ...
    def end(self, *, exit_code: int | None = None, signal: int | None = None, oom: bool = False) -> None: ...
    def count(self, *, oom_kills: int = 0, forks_refused: int = 0, cpu_ms: float = 0.0) -> None: ...
    def fill(self) -> None: ...


class Server(asyncio.Protocol):
    """The inner end of one channel."""

    def __init__(self, body: Body, hello: bool, run_ns: int = RUN_NS) -> None:
        self._body = body
        self._times = struct.pack("!QQ", run_ns, min(run_ns, CPU_NS))
        self._says_hello = hello
        self._buffer = bytearray()
        self._load: dict[str, Any] = {}
        self._open: set[int] = set()
        self._queued: list[tuple[int, bytes]] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._says_hello:
            self.greet()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._body.end(exit_code=0)

    def greet(self) -> None:
        self._send(HELLO, 0, b'{"wire":1,"runtime":"fake","version":"1.0.0","queues":true}')

    def close(self) -> None:
        """Say what is still unsaid, then close the channel."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, kind, number = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            self._receive(kind, number, payload)

    def _send(self, kind: int, number: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(_HEADER.pack(len(payload), kind, number) + payload)

    def _receive(self, kind: int, number: int, payload: bytes) -> None:
        if kind == LOAD:
            self._load_function(msgspec.json.decode(payload))
        elif kind == CALL:
            self._begin(number, payload)
        elif kind == QUEUED:
            self._queued.append((number, payload))
            self._begin_queued()
        elif kind == CANCEL and self._is_forking and number in self._open:
            self._fail(number, "Cancelled", "the caller has left")
        elif kind != CANCEL:
            self._body.end(exit_code=78)

    def _begin(self, number: int, payload: bytes) -> None:
        self._open.add(number)
        self._call(number, payload[:16], struct.unpack_from("!I", payload, 16)[0], payload[20:])

    def _begin_queued(self) -> None:
        """Start what queues, one after another, as far as the node permits."""
        while self._queued and not self._open:
            number, payload = self._queued.pop(0)
            if self._body.take_permit():
                self._begin(number, payload)

    @property
    def _is_forking(self) -> bool:
        return bool(self._load.get("mode") == "fork")

    # Loading

    def _load_function(self, load: dict[str, Any]) -> None:
        self._load = load
        handler = load["handler"]
        if handler == "fake.refuse":
            self._fail(0, "ImportFailed", "ModuleNotFoundError: No module named 'refused'")
            self._body.end(exit_code=1)
        elif handler == "fake.exit":
            self._body.end(exit_code=1)
        elif handler == "fake.slow":
            asyncio.get_running_loop().call_later(self._body.load_s, self._say_loaded)
        elif handler != "fake.never":
            self._say_loaded()

    def _say_loaded(self) -> None:
        self._send(LOADED, 0, struct.pack("!Q", 3_000_000))

    # Calls

    def _call(self, number: int, invocation: bytes, budget_ms: int, body: bytes) -> None:
        try:
            event = msgspec.json.decode(body or b"{}")
        except msgspec.DecodeError as error:
            self._fail(number, "BadEvent", f"the event is not JSON: {error}")
            return
        if not (isinstance(event, dict) and "do" in event):
            self._answer(number, event)
            return
        if event["do"] == "context":
            event["value"] = {
                "id": invocation.hex(),
                "budget_ms": budget_ms,
                "function": self._load.get("function"),
                "mode": self._load.get("mode"),
            }
        self._perform(number, event)

    def _perform(self, number: int, event: dict[str, Any]) -> None:
        counted = {key: event[key] for key in ("oom_kills", "forks_refused", "cpu_ms") if key in event}
        self._body.count(**counted)
        if event.get("is_disk_full"):
            self._body.fill()
        action = getattr(self, f"_do_{event['do']}", None)
        if action is None:
            self._fail(number, "ValueError", f"the fake cannot do {event['do']!r}")
        else:
            action(number, event)

    def _answer(self, number: int, value: object = None) -> None:
        if number not in self._open:
            return
        self._open.discard(number)
        result = msgspec.json.encode(value)
        if len(result) > self._load.get("result_bytes", len(result)):
            self._send_error(number, "ResultTooLarge", f"the result has {len(result)} bytes")
        else:
            self._send(RESULT, number, self._times + result)
        asyncio.get_running_loop().call_soon(self._begin_queued)

    def _fail(self, number: int, kind: str, message: str, **beside: int) -> None:
        self._open.discard(number)
        self._send_error(number, kind, message, **beside)
        asyncio.get_running_loop().call_soon(self._begin_queued)

    def _send_error(self, number: int, kind: str, message: str, **beside: int) -> None:
        error = {"type": kind, "message": message, "stack": f"{kind}: {message}\n", **beside}
        self._send(ERROR, number, self._times + msgspec.json.encode(error))

    def _end(
        self, number: int, *, exit_code: int | None = None, signal: int | None = None, spent_ms: float = 1.0
    ) -> None:
        if self._is_forking:
            self._open.discard(number)
            code, by = (-1 if exit_code is None else exit_code), (-1 if signal is None else signal)
            self._send(EXITED, number, struct.pack("!iiQ", code, by, round(spent_ms * 1e6)))
        else:
            self._body.end(exit_code=exit_code, signal=signal)

    def _write(self, number: int, stream: int, data: bytes) -> None:
        if self._is_forking or self._load.get("concurrency", 1) > 1:
            self._send(LOG, number, bytes([stream]) + data)
        else:
            self._body.write(stream, data)

    # The words

    def _do_echo(self, number: int, event: dict[str, Any]) -> None:
        self._answer(number, event.get("value"))

    _do_context = _do_echo

    def _do_big(self, number: int, event: dict[str, Any]) -> None:
        self._answer(number, "x" * (event["bytes"] - 2))

    def _do_raise(self, number: int, event: dict[str, Any]) -> None:
        errno = {"errno": event["errno"]} if "errno" in event else {}
        self._fail(number, event.get("type", "ValueError"), event.get("message", "asked to"), **errno)

    def _do_print(self, number: int, event: dict[str, Any]) -> None:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            if event.get(name):
                self._write(number, stream, event[name].encode())
        self._answer(number)

    def _do_flood(self, number: int, event: dict[str, Any]) -> None:
        if self._is_forking or self._load.get("concurrency", 1) > 1:
            self._flood_frames(number)
        else:
            self._body.flood()

    def _flood_frames(self, number: int) -> None:
        if number in self._open and self._transport is not None:
            self._write(number, 1, FLOOD)
            asyncio.get_running_loop().call_soon(self._flood_frames, number)

    def _do_sleep(self, number: int, event: dict[str, Any]) -> None:
        asyncio.get_running_loop().call_later(event["seconds"], self._answer, number)

    def _do_hold(self, number: int, event: dict[str, Any]) -> None:
        self._body.hold(event.get("key", ""), lambda: self._answer(number))

    def _do_hang(self, number: int, event: dict[str, Any]) -> None:
        pass

    def _do_exit(self, number: int, event: dict[str, Any]) -> None:
        self._end(number, exit_code=event.get("code", 0), spent_ms=event.get("spent_ms", 1.0))

    def _do_kill(self, number: int, event: dict[str, Any]) -> None:
        self._end(number, signal=event.get("signal", 9), spent_ms=event.get("spent_ms", 1.0))

    def _do_oom(self, number: int, event: dict[str, Any]) -> None:
        self._body.count(oom_kills=1)
        if self._is_forking:
            self._end(number, signal=9)
        else:
            self._body.end(signal=9, oom=True)

    def _do_garbage(self, number: int, event: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(bytes(range(256)) * (event.get("bytes", 256) // 256))

    def _do_liar(self, number: int, event: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(_HEADER.pack(event.get("length", 0xFFFFFFFF), RESULT, number))

    def _do_close(self, number: int, event: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write_eof()
