"""One HTTP listener for all REST doors: calls take a fast route, the rest goes to ASGI.

Theory. `CallProtocol` is uvicorn's own httptools protocol, which keeps parsing, keep-alive, flow
control and graceful stop uvicorn's. Where a request's path is a door's route, the place of uvicorn's
request-response cycle is taken by a `FastExchange`: it collects the body and hands itself to the door
by a plain call, with no task, no scope and no ASGI message on the way. Everything the parent does
with "the current cycle" (pipelining, disconnects) works on either kind.

Clients say the same head again and again, and how it was parsed does not change: `Heads` remembers it. A
request that is wholly there, with a head that is known, is not parsed again.
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from stoker.doors.crowd import BUSY, Idlers, Rests
from stoker.doors.exchange import Exchange, Request
from stoker.doors.explanation import lines
from stoker.doors.heads import Head, Heads, Routes
from stoker.errors import PayloadTooLarge

MAX_DISCARDED = 16
"""A body larger than allowed is read to its end, so that the client hears the refusal; past this many
times the allowed size the connection is closed instead."""
END_OF_HEAD: Final = b"\r\n\r\n"
MAX_UNHEARD_BYTES: Final = 64 * 1024
"""So much may come of a request and tell nothing yet: a head, or what stands between two chunks."""
HOP_HEADERS = frozenset((b"upgrade", b"connection", b"http2-settings"))


class FastExchange(Exchange):
    """One request on the fast route and its one reply."""

    __slots__ = (
        "_head",
        "_parts",
        "_protocol",
        "_size",
        "disconnected",
        "has_whole_body",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(self, protocol: CallProtocol, head: Head, received: float) -> None:
        self.request = head.request
        self.body = b""
        self.received = received
        self.on_left: Callable[[], object] | None = None
        self._protocol = protocol
        self._head = head
        self._parts: list[bytes] | None = None
        self._size = 0
        # What the parent reads and writes on a cycle:
        self.keep_alive = head.keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = NOBODY
        self.has_whole_body = False

    def __repr__(self) -> str:
        state = "replied" if self.response_complete else "left" if self.disconnected else "open"
        return f"<FastExchange of {self.request!r} {state}>"

    def add(self, part: bytes, max_bytes: int) -> bool:
        """Keep a part of the body; past `max_bytes` only count. False when it is far too large."""
        self._size += len(part)
        if self._size > max_bytes:
            self._parts = None
        elif self._parts is None:
            self._parts = [part]
        else:
            self._parts.append(part)
        return self._size <= max_bytes * MAX_DISCARDED

    def answer(self, max_bytes: int) -> None:
        """The body is complete and it is this request's turn."""
        if self._size > max_bytes:
            message = f"the event has {self._size} bytes, this node takes at most {max_bytes}"
            self._head.route.refuse(self, PayloadTooLarge(message))
            return
        parts, self._parts = self._parts, None
        if parts is not None:
            self.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._head.route.answer(self)

    def leave(self) -> None:
        """The connection is lost."""
        self.disconnected = True
        if not self.response_complete and self.on_left is not None:
            self.on_left()

    def reply(self, status: int, head: bytes, body: bytes) -> None:
        if not self.response_complete and not self.disconnected:
            self.response_complete = True
            self._protocol.send_reply(self, status, head, body)

    def turn_away(self, status: int, head: bytes, body: bytes) -> None:
        self._protocol.rest()
        self.reply(status, head, body)

    def keep_in(self, heads: Heads, text: bytes, body: bytes) -> None:
        """Remember the head of a request that was parsed, if it is `text`, and all that followed its body."""
        if self.has_whole_body and self.body == body:
            heads.keep(text, self._head, len(body))


class NobodyWaits:
    """Stands where a cycle of the parent's has the event its ASGI application waits for."""

    def set(self) -> None:
        pass


NOBODY: Final = NobodyWaits()


class CallProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        *arguments: Any,
        routes: Routes,
        heads: Heads,
        max_event_bytes: int,
        idlers: Idlers,
        rests: Rests,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._heads = heads
        self._begun = 0
        """Requests that the parser has seen begin."""
        self._is_between = True
        """The parser has none that has begun and not ended."""
        self._unheard_bytes = 0
        """Since it last told something of a request."""
        self._rests = rests
        self._last_queued: Any = None
        """What was taken from the pipeline last; it may be answered now, while `cycle` is the newest."""
        self._is_resting = self._is_going_on = False
        self._is_due = False
        """The last reply is out; what comes after it waits until the client reads, or its rest is over."""
        self._idlers = idlers
        self._routes = routes
        self._max_event_bytes = max_event_bytes
        self._received = 0.0
        self._is_upgrade_offered = False
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""
        self.idle_since = BUSY
        """Since when nothing is asked of it; before the first request it may take its time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idlers.add(self)

    # What the parser calls

    def data_received(self, data: bytes) -> None:
        self._received = received = time.monotonic()
        self.idle_since = BUSY
        if not self._is_between:
            self._parse(data)
            return
        text, end, body = data.partition(END_OF_HEAD)
        head = self._heads.find(text)
        if head is not None and end and head.body_bytes == len(body) and self._is_free():
            exchange = FastExchange(self, head, received)
            exchange.body = body
            self.cycle = exchange  # type: ignore[assignment]
            head.route.answer(exchange)
            return
        begun = self._begun + 1
        is_one = self._parse(data) and self._begun == begun
        self._remember(text, body, is_one and not self.expect_100_continue)

    def _remember(self, text: bytes, body: bytes, is_one: bool) -> None:
        """Keep the head of what was just parsed, where that was one request, and all of it."""
        cycle: Any = self.cycle
        if is_one and self._is_between and isinstance(cycle, FastExchange):
            cycle.keep_in(self._heads, text, body)

    def _is_free(self) -> bool:
        """Whether a request that comes now is answered now."""
        before: Any = self.cycle
        is_answered = before is None or before.response_complete
        return is_answered and not (self._is_resting or self.flow.write_paused)

    def _parse(self, data: bytes) -> bool:
        """Whether it was what it should be, and offered no upgrade."""
        offers_nothing = True
        self._unheard_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self.send_400_response("This is no proxy.")
                    return False
                data = self._without_upgrade(data[offer.args[0] :])
                offers_nothing = False
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return False
        if self._unheard_bytes > MAX_UNHEARD_BYTES and not self._is_between:
            self.send_400_response(f"The head has more than {MAX_UNHEARD_BYTES} bytes.")
            return False
        return offers_nothing

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        self._begun += 1
        self._unheard_bytes = 0
        self._is_between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._is_upgrade_offered = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps it as it was written: only ASGI wants to see names in lower case."""
        if len(name) == len(b"expect") and name.lower() == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._unheard_bytes = 0
        if self.parser.should_upgrade():
            # The parser stops after this head; see _without_upgrade.
            self._is_upgrade_offered = True
            return
        raw_path, _, query = self.url.partition(b"?")
        method = self.parser.get_method().decode("ascii")
        route = self._routes.find(raw_path, method)
        if route is None:
            self._begin_asgi()
            return
        path = raw_path.decode("ascii", "replace")
        request = Request(method, urllib.parse.unquote(path) if "%" in path else path, query)
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        is_free = self._is_free()
        exchange: Any = FastExchange(self, Head(route, request, keep_alive), self._received)
        self.cycle = exchange
        if not is_free:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        elif self.expect_100_continue:
            self._have_body_sent()

    def _have_body_sent(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        if self._is_upgrade_offered:
            return
        cycle: Any = self.cycle
        if not isinstance(cycle, FastExchange):
            super().on_body(body)
        elif not cycle.response_complete and not cycle.add(body, self._max_event_bytes):
            cycle.keep_alive = False
            if self._is_queued(cycle):
                self.transport.abort()
            else:
                cycle.answer(self._max_event_bytes)

    def on_message_complete(self) -> None:
        self._is_between = True
        if self._is_upgrade_offered:
            return
        cycle: Any = self.cycle
        if not isinstance(cycle, FastExchange):
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.has_whole_body = True
            if not self.pipeline or not self._is_queued(cycle):
                cycle.answer(self._max_event_bytes)

    def _is_queued(self, cycle: FastExchange) -> bool:
        queued: Any = self.pipeline
        return bool(queued) and queued[0][0] is cycle  # it is the newest

    def _begin_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend([(name.lower(), value) for name, value in headers])
        super().on_headers_complete()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """What to parse as if no upgrade had been offered (RFC 9110, 7.8): the head again without it.

        Stock Java clients offer `h2c` with every request; the parser then takes the body for the
        other protocol's bytes.
        """
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name.lower() not in HOP_HEADERS:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        return b"".join([*head, b"\r\n", rest])

    # What the parent calls on the current cycle, and what an exchange calls

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, FastExchange):
            if cycle.has_whole_body:
                cycle.answer(self._max_event_bytes)
            elif self.expect_100_continue and cycle is self.cycle:  # what is not whole yet is the newest
                self._have_body_sent()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.pipeline or self.flow.read_paused or self.flow.write_paused or self._is_resting:
            self._go_on()
        elif not self.transport.is_closing():
            self.idle_since = time.monotonic()

    def _go_on(self) -> None:
        """Read on, and start what is queued: in a loop, for thousands may be answered at once."""
        if self._is_going_on:
            return
        self._is_due = not self._may_go_on()
        if self._is_due:
            if not self.transport.is_closing():
                self.flow.pause_reading()
            return
        self.flow.resume_reading()
        self._is_going_on = True
        try:
            while self.pipeline and not self._is_due:
                cycle, app = self.pipeline.pop()
                self._last_queued = cycle
                self._start_asgi_task(cycle, app)
                if not cycle.response_complete:
                    return
                self._is_due = not self._may_go_on()
        finally:
            self._is_going_on = False
        if self._is_due:
            self._go_on()
        else:
            self.idle_since = time.monotonic()

    def _may_go_on(self) -> bool:
        return not (self._is_resting or self.flow.write_paused or self.transport.is_closing())

    def pause_writing(self) -> None:
        """The client takes none of its replies: no request of it is heard until it does."""
        super().pause_writing()
        if not self.transport.is_closing():
            self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_due:
            self._go_on()
        elif not self.pipeline and not self.transport.is_closing():
            self.flow.resume_reading()

    def rest(self) -> None:
        """Whoever is on this connection is being turned away: hear the next request when it is its turn."""
        if not self._is_resting:
            self._is_resting = self._rests.add(self, time.monotonic())

    def wake(self) -> None:
        """The rest is over."""
        self._is_resting = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._idlers.discard(self)
        newest: Any = self.cycle
        super().connection_lost(exc)
        for cycle in {newest, self._last_queued, *(waiting for waiting, _ in self.pipeline)} - {None}:
            if isinstance(cycle, FastExchange):
                cycle.leave()
            else:
                cycle.disconnected = True
                cycle.message_event.set()

    def send_reply(self, exchange: FastExchange, status: int, head: bytes, body: bytes) -> None:
        """Head and body in one write (two would wait for each other's acknowledgement)."""
        if self.transport.is_closing():
            return  # who asked has gone, of which we hear at the next turn of the loop
        length = b"content-length: %d\r\n" % len(body)
        end = b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n"
        sent = b"" if exchange.request.method == "HEAD" else body
        usual = self.server_state.default_headers
        if usual is not self._default_headers:  # uvicorn makes a new list of them each second
            self._default_headers, self._default_lines = usual, lines(usual)
        self.transport.write(b"".join((STATUS_LINE[status], self._default_lines, head, length, end, sent)))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()


def protocol_factory(routes: Routes, max_event_bytes: int) -> Callable[..., CallProtocol]:
    """What uvicorn calls for each connection."""
    heads, idlers, rests = Heads(), Idlers(), Rests()

    def make(*arguments: Any, **options: Any) -> CallProtocol:
        return CallProtocol(
            *arguments,
            routes=routes,
            heads=heads,
            max_event_bytes=max_event_bytes,
            idlers=idlers,
            rests=rests,
            **options,
        )

    return make
