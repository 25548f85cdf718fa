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
from collections.abc import Callable, Sequence
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from stoker.doors.contract import Request, Route
from stoker.doors.crowd import BUSY, Idlers, Rests
from stoker.doors.explanation import lines
from stoker.errors import PayloadTooLarge

MAX_DISCARDED = 16
"""A body larger than allowed is read to its end, so that the client hears the refusal; past this many
times the allowed size the connection is closed instead."""
END_OF_HEAD = b"\r\n\r\n"
MAX_HEADS, MAX_HEAD_BYTES = 1024, 2048
"""So many heads are remembered, none longer: 4 MB, where every client sends ever new ones."""
HOP_HEADERS = frozenset((b"upgrade", b"connection", b"http2-settings"))


class Routes:
    """Finds the route of a path: exactly, or by what stands before and after one free segment."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact = {route.path.encode(): route for route in routes if "*" not in route.path}
        self._free = [
            (before.encode(), after.encode(), route)
            for route in routes
            for before, star, after in [route.path.partition("*")]
            if star
        ]

    def find(self, path: bytes, method: str) -> Route | None:
        route = self._exact.get(path)
        if route is None:
            for before, after, free in self._free:
                if path.startswith(before) and path.endswith(after):
                    segment = path[len(before) : len(path) - len(after)]
                    if segment and b"/" not in segment:
                        route = free
                        break
        return route if route is not None and method in route.methods else None


class Head:
    """What the parser made of the head of a request."""

    __slots__ = ("body_bytes", "keep_alive", "request", "route")

    def __init__(self, route: Route, request: Request, keep_alive: bool) -> None:
        self.route = route
        self.request = request
        self.keep_alive = keep_alive
        self.body_bytes = 0

    def __repr__(self) -> str:
        return f"<Head of {self.request!r} with {self.body_bytes} bytes>"


class Heads:
    """The heads that were parsed last, by their bytes; those of whole requests on fast routes alone."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get

    def __repr__(self) -> str:
        return f"<Heads, {len(self._known)} known>"

    def keep(self, text: bytes, head: Head, body_bytes: int) -> None:
        """Remember what was parsed of `text`, behind which so many bytes of a body followed."""
        if len(text) <= MAX_HEAD_BYTES:
            if len(self._known) >= MAX_HEADS:
                self._known.clear()
            head.body_bytes = body_bytes
            self._known[text] = head


class FastExchange:
    """One request on the fast route and its one reply; implements `doors.contract.Exchange`."""

    __slots__ = (
        "_head",
        "_parts",
        "_protocol",
        "_size",
        "body",
        "disconnected",
        "has_whole_body",
        "keep_alive",
        "message_event",
        "on_left",
        "received",
        "request",
        "response_complete",
    )

    def __init__(self, protocol: CallProtocol, head: Head, received: float) -> None:
        self._protocol = protocol
        self._head = head
        self._parts: list[bytes] | None = None
        self._size = 0
        self.request = head.request
        self.body = b""
        self.received = received
        self.on_left: Callable[[], object] | None = None
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


NOBODY = NobodyWaits()


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
        self._rests = rests
        self._is_resting = self._is_going_on = False
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
        text, _, body = data.partition(END_OF_HEAD)
        head = self._heads.find(text)
        if head is not None and head.body_bytes == len(body) and self._is_free():
            exchange: Any = FastExchange(self, head, received)
            exchange.body = body
            self.cycle = exchange
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
        return not self._is_resting and (before is None or before.response_complete)

    def _parse(self, data: bytes) -> bool:
        """Whether it was what it should be."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        else:
            return True
        return False

    def on_message_begin(self) -> None:
        self._begun += 1
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
        if self.parser.should_upgrade():
            # The parser stops after this head; see _decline_upgrade.
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
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
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

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on as if no upgrade had been offered (RFC 9110, 7.8): parse the head again without it.

        Stock Java clients offer `h2c` with every request; the parser then takes the body for the
        other protocol's bytes.
        """
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name.lower() not in HOP_HEADERS:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    # What the parent calls on the current cycle, and what an exchange calls

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, FastExchange):
            if cycle.has_whole_body:
                cycle.answer(self._max_event_bytes)
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.pipeline or self.flow.read_paused or self._is_resting:
            self._go_on()
        elif not self.transport.is_closing():
            self.idle_since = time.monotonic()

    def _go_on(self) -> None:
        """Read on, and start what is queued: in a loop, for thousands may be answered at once."""
        if self._is_resting and not self.transport.is_closing():
            self.flow.pause_reading()
        if self._is_going_on or not self._may_go_on():
            return
        self.flow.resume_reading()
        is_free, self._is_going_on = True, True
        try:
            while is_free and self.pipeline:
                cycle, app = self.pipeline.pop()
                self._start_asgi_task(cycle, app)
                is_free = cycle.response_complete and self._may_go_on()
        finally:
            self._is_going_on = False
        if is_free:
            self.idle_since = time.monotonic()

    def _may_go_on(self) -> bool:
        return not self._is_resting and not self.transport.is_closing()

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
        current: Any = self.cycle
        super().connection_lost(exc)
        if isinstance(current, FastExchange):
            current.leave()
        for waiting, _ in self.pipeline:
            if isinstance(waiting, FastExchange):
                waiting.leave()

    def send_reply(self, exchange: FastExchange, status: int, head: bytes, body: bytes) -> None:
        """Head and body in one write (two would wait for each other's acknowledgement)."""
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
