"""The node's end of the wire: frames on one Unix stream socket (see `docs/wire.md`).

HOLDS (invariant 7): whatever comes from inside, memory is bounded before it is allocated and the
node lives. A header that promises too much ends the session; nothing inside a payload is parsed
here except the fixed numbers at its front and an ERROR's small JSON.
"""

from __future__ import annotations

import asyncio
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import msgspec

from stoker.runtimes.greeting import WIRE, Load, decode_hello
from stoker.types import MEBIBYTE, FunctionError

LOAD, CALL, CANCEL, DATA_IN, QUEUED = 0x01, 0x02, 0x03, 0x04, 0x05
HELLO, LOADED, RESULT, ERROR, LOG, DATA_OUT, EXITED = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87
MORE = 0x40
PERMIT: Final = bytes(8)

HEADER: Final = struct.Struct("!IBI")
CALL_HEAD: Final = struct.Struct("!IBI16sI")
TIMES: Final = struct.Struct("!QQ")
EXIT = struct.Struct("!iiQ")
RESULT_AT: Final = HEADER.size + TIMES.size
LOAD_TIME = struct.Struct("!Q")
THAWED, PARTLY = b"\1", b"\2"
MAX_NAMES, MAX_NAMES_BYTES = 32, 4096

SLACK = MEBIBYTE  # what a frame may be longer than the largest result: heads, an error's stack
MAX_ERROR = MEBIBYTE
# What may be said beside the ends of calls from one call's start to the next one's. A frame costs the node
# about a microsecond, however small; of bytes for nobody there is no use at all.
MAX_ASIDE = 16 * MEBIBYTE
LOG_COST, WASTE_COST = 128, 256
FRAMES_AT_ONCE: Final = 256  # in one turn of the event loop: about a millisecond of the smallest ones
READ_BYTES, MAX_LAST_READS = 64 * 1024, 16  # together more than a Unix socket holds


class Loading(NamedTuple):
    """How a function was loaded."""

    took_s: float
    is_thawed: bool = False
    """Its zygote was there."""
    is_partly: bool = False
    """That of its packages was, and the rest was imported."""
    imports: frozenset[str] = frozenset()
    """The modules of its packages that its code names: words from inside, of which nothing is sure."""


class CallListener(ABC):
    """Who wants to hear of one call. Exactly one of the last three comes, once."""

    __slots__ = ()

    @abstractmethod
    def wrote(self, stream: int, data: bytes) -> None: ...
    @abstractmethod
    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None: ...
    @abstractmethod
    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None: ...
    @abstractmethod
    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None: ...


class SessionListener(ABC):
    """Who wants to hear of the sandbox itself."""

    @abstractmethod
    def connected(self) -> None:
        """Words can be said; nothing is heard before this returns."""

    @abstractmethod
    def greeted(self, can_queue: bool) -> None: ...
    @abstractmethod
    def loaded(self, load_ns: int) -> None: ...
    @abstractmethod
    def load_failed(self, error: FunctionError) -> None: ...
    @abstractmethod
    def session_ended(self, reason: str) -> None:
        """The stream is over: closed by the other side (reason empty) or for breaking the rules."""


_decode_error = msgspec.json.Decoder(FunctionError).decode


def write_load(load: Load) -> bytes:
    """The frame that says what to load."""
    body = msgspec.json.encode(load)
    return HEADER.pack(len(body), LOAD, 0) + body


class Session(asyncio.Protocol):
    """One conversation with the server inside one sandbox."""

    def __init__(
        self, listener: SessionListener, result_bytes: int, call_soon: Callable[[Callable[[], None]], object]
    ) -> None:
        """`call_soon` calls back in a later turn of the event loop."""
        self._listener = listener
        self._call_soon = call_soon
        self._max_frame = result_bytes + SLACK
        self._result_bytes = result_bytes
        self._calls: dict[int, CallListener] = {}
        self._parts: dict[int, tuple[int, int, bytearray]] = {}
        self._buffer = bytearray()
        self._queued: list[bytes] = []
        self._last_call = 0
        self._aside = 0
        self.reads = 0
        """How often something was read from the stream."""
        self._transport: asyncio.Transport | None = None
        self.loading = Loading(0.0)
        """As LOADED told it."""
        self._is_greeted = False
        self._is_loaded = False
        self.is_lost = False
        """The transport has gone, and its descriptor with it."""
        self._is_over = False

    def __repr__(self) -> str:
        state = "over" if self._is_over else "open"
        return f"<Session {state}, {len(self._calls)} calls in flight>"

    # What we say

    def load(self, load: Load, sent: int = 0) -> None:
        """Say what to load; of the frame so many bytes have been sent already."""
        self._write(write_load(load)[sent:])

    def call(self, listener: CallListener, invocation: bytes, budget_ms: int, event: bytes) -> int:
        """Send one call; returns its number on this connection."""
        number = self.queue(listener, invocation, budget_ms, event, CALL)
        self.send_queued()
        return number

    def queue(
        self, listener: CallListener, invocation: bytes, budget_ms: int, event: bytes, kind: int = QUEUED
    ) -> int:
        """Have one queued call sent with the next `send_queued`; returns its number on this connection."""
        self._last_call = number = self._last_call % 0xFFFFFFFF + 1
        self._calls[number] = listener
        self._aside = 0
        self._queued.append(CALL_HEAD.pack(20 + len(event), kind, number, invocation, budget_ms) + event)
        return number

    def send_queued(self) -> None:
        """Send what was queued. HOLDS: there is a permit for each."""
        frames, self._queued = self._queued, []
        self._write(b"".join(frames))

    def forget(self, number: int) -> None:
        """Stop listening to a call that will not be run; a server that lies may have begun to answer it."""
        self._calls.pop(number, None)
        self._parts.pop(number, None)

    def cancel(self, number: int) -> None:
        """Stop listening to a call and ask the other side to end it."""
        if self._calls.pop(number, None) is not None:
            self._parts.pop(number, None)
            self._write(HEADER.pack(0, CANCEL, number))

    def close(self) -> None:
        """Idempotent; no listener hears anything afterwards."""
        self._is_over = True
        self._calls.clear()
        self._parts.clear()
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._is_over:
            self._transport.write(data)

    # What we hear

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._listener.connected()

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self.is_lost = True
            if not self._is_over:
                self.data_received(b"")
            if exc is not None and not self._is_over:
                self._hear_last_words()
        finally:
            self._end("")

    def _hear_last_words(self) -> None:
        """What a server said before it left is lost with the transport when our next write fails."""
        assert self._transport is not None
        line = self._transport.get_extra_info("socket")
        for _ in range(MAX_LAST_READS if line is not None else 0):
            try:
                data = os.read(line.fileno(), READ_BYTES)
            except OSError:
                return
            if not data or self._is_over:
                return
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer) if self._has_frame() else b""
            if not data:
                return
            self._buffer.clear()
        start, size, left = 0, len(data), FRAMES_AT_ONCE
        while size - start >= HEADER.size:
            if not left and not self.is_lost:
                self._go_on_later()
                break
            left -= 1
            length, kind, number = HEADER.unpack_from(data, start)
            if length > self._max_frame:
                self._end(f"a frame of {length} bytes, more than the {self._max_frame} allowed")
                return
            end = start + HEADER.size + length
            if end > size:
                break
            try:
                if kind == RESULT and self._is_loaded:
                    self._receive_result(number, data, start, end)
                else:
                    self._receive(kind, number, data[start + HEADER.size : end])
            except (struct.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self._end(f"a malformed frame of kind {kind:#x}: {error}")
            if self._is_over:
                return
            start = end
        if start < size:
            self._buffer += data[start:]

    def _go_on_later(self) -> None:
        """Others are heard before more of this; what has been read is kept, and no more is read so long."""
        assert self._transport is not None
        self._transport.pause_reading()
        self._call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._is_over and not self.is_lost:
            assert self._transport is not None
            self._transport.resume_reading()
            self.data_received(b"")

    def _has_frame(self) -> bool:
        """Whether the buffer holds a whole frame or a header worth refusing."""
        if len(self._buffer) < HEADER.size:
            return False
        length: int = HEADER.unpack_from(self._buffer)[0]
        return length > self._max_frame or len(self._buffer) >= HEADER.size + length

    def _receive_result(self, number: int, data: bytes, start: int, end: int) -> None:
        """The frame that ends nearly every call, where it lies."""
        if self._parts:
            self._parts.pop(number, None)
        listener = self._calls.pop(number, None)
        if listener is None:
            self._count(WASTE_COST + end - start)
        elif end < start + RESULT_AT:
            raise struct.error(f"a result of {end - start} bytes, its times included")
        else:
            run_ns, cpu_ns = TIMES.unpack_from(data, start + HEADER.size)
            listener.answered(run_ns, cpu_ns, data[start + RESULT_AT : end])

    def _receive(self, kind: int, number: int, payload: bytes) -> None:
        if not self._is_loaded:
            self._receive_early(kind, number, payload)
        elif kind == LOG:
            self._receive_log(number, payload)
        elif kind == EXITED or (kind == ERROR and number):
            self._receive_bad_end(kind, number, payload)
        elif kind in (RESULT | MORE, DATA_OUT | MORE, DATA_OUT):
            self._receive_part(kind, number, payload)
        else:
            self._end(f"a frame of kind {kind:#x}, unknown or too late")

    def _receive_log(self, number: int, payload: bytes) -> None:
        if number in self._calls and payload:
            self._calls[number].wrote(payload[0], payload[1:])
            self._count(LOG_COST)
        else:
            self._count(WASTE_COST + len(payload))

    def _receive_bad_end(self, kind: int, number: int, payload: bytes) -> None:
        listener = self._forget_answered(number)
        if listener is None:
            self._count(WASTE_COST + len(payload))
        elif kind == EXITED:
            listener.exited(*EXIT.unpack(payload))
        else:
            run_ns, cpu_ns = TIMES.unpack_from(payload)
            listener.raised(run_ns, cpu_ns, read_error(payload))

    def _receive_early(self, kind: int, number: int, payload: bytes) -> None:
        """What may come before any call's end, each at most once and in this order."""
        if kind == HELLO and not self._is_greeted:
            self._is_greeted = True
            self._receive_hello(payload)
        elif kind == LOADED and self._is_greeted:
            load_ns = LOAD_TIME.unpack_from(payload)[0]
            self.loading = read_loaded(payload)
            self._is_loaded = True
            self._listener.loaded(load_ns)
        elif kind == ERROR and self._is_greeted and not number:
            error = read_error(payload)
            self._is_loaded = True
            self._listener.load_failed(error)
        else:
            self._end(f"a frame of kind {kind:#x}, unknown or too early")

    def _receive_hello(self, payload: bytes) -> None:
        hello = decode_hello(payload)
        if hello.wire == WIRE:
            self._listener.greeted(hello.queues)
        else:
            self._end(f"wire version {hello.wire}, this node speaks {WIRE}")

    def _receive_part(self, kind: int, number: int, payload: bytes) -> None:
        if number not in self._calls:
            self._count(WASTE_COST + len(payload))
            return
        if kind == RESULT | MORE:
            before = len(self._parts[number][2]) if number in self._parts else 0
            run_ns, cpu_ns = TIMES.unpack_from(payload)
            self._parts[number] = (run_ns, cpu_ns, bytearray(payload[TIMES.size :]))
            self._count(WASTE_COST + before)
            return
        if number not in self._parts:
            self._end(f"a part of a result that was not begun, in a frame of kind {kind:#x}")
            return
        run_ns, cpu_ns, joined = self._parts[number]
        joined += payload
        if len(joined) > self._result_bytes:
            self._end(f"a result of more than {self._result_bytes} bytes")
        elif kind == DATA_OUT:
            listener = self._forget_answered(number)
            assert listener is not None
            listener.answered(run_ns, cpu_ns, bytes(joined))
        else:
            self._count(WASTE_COST)

    def _count(self, cost: int) -> None:
        """Bear what ends no call, up to a measure: it takes the node's time, which is everybody's."""
        self._aside += cost
        if self._aside > MAX_ASIDE:
            self._end("a flood of frames that end no call")

    def _forget_answered(self, number: int) -> CallListener | None:
        """The listener of a call that ends here; nobody hears of it again."""
        if self._parts:
            self._parts.pop(number, None)
        return self._calls.pop(number, None)

    def _end(self, reason: str) -> None:
        if self._is_over:
            return
        self.close()
        self._listener.session_ended(reason)


def read_loaded(payload: bytes) -> Loading:
    """What LOADED tells. Raises `struct.error`."""
    (load_ns,), how, names = LOAD_TIME.unpack_from(payload), payload[8:9], payload[9 : 9 + MAX_NAMES_BYTES]
    words = names.decode("ascii", "replace").split("\n")[:MAX_NAMES]
    known = frozenset(word for word in words if all(part.isidentifier() for part in word.split(".")))
    return Loading(load_ns / 1e9, how == THAWED, how == PARTLY, known)


def read_error(payload: bytes) -> FunctionError:
    """The error behind an ERROR's numbers. Raises DecodeError, UnicodeDecodeError, RecursionError."""
    if len(payload) > MAX_ERROR:
        return FunctionError("Error", "the function's error was too large to be kept")
    return _decode_error(payload[TIMES.size :])
