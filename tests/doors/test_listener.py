"""The listener over real sockets: what uvicorn promises still holds with the fast route in between."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from stoker.doors.contract import Route
from stoker.doors.crowd import BUSY, TURNED_AWAY_AT_ONCE
from stoker.doors.exchange import Exchange, Request
from stoker.doors.heads import MAX_HEAD_BYTES, MAX_HEADS, Head, Heads, Routes
from stoker.doors.listener import protocol_factory

MAX_EVENT = 1000
KEEP_ALIVE_S = 1
TEXT = b"content-type: text/plain\r\n"
POST = b"POST /echo HTTP/1.1\r\nhost: a\r\n"


class Echo:
    """A door that answers with the body, at once or when told to."""

    def __init__(self) -> None:
        self.held: list[Exchange] = []
        self.left: list[str] = []
        self.calls = 0

    def answer(self, exchange: Exchange) -> None:
        self.calls += 1
        if exchange.request.query == b"busy":
            exchange.turn_away(429, b"retry-after: 1\r\n", exchange.body)
        elif exchange.request.query == b"hold":
            self.held.append(exchange)
            exchange.on_left = lambda: self.left.append(exchange.request.path)
        else:
            exchange.reply(200, TEXT, exchange.body or exchange.request.path.encode())

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        exchange.reply(413, TEXT, str(error).encode())

    def routes(self) -> Routes:
        methods = frozenset({"GET", "POST"})
        return Routes([Route(methods, path, self.answer, self.refuse) for path in ("/echo", "/f/*/call")])


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-length", b"%d" % (5 + len(body)))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"asgi:" + body})


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return int(first.split()[1]), headers, body

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.send(data)
        status, _, body = await self.reply()
        return status, body

    async def is_closed(self) -> bool:
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


class Listening:
    """A server and its door."""

    def __init__(self, door: Echo, server: uvicorn.Server, port: int) -> None:
        self.door = door
        self.server = server
        self.port = port

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    door, sock = Echo(), socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        asgi,
        http=protocol_factory(door.routes(), MAX_EVENT),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = uvicorn.Server(config)
    served = asyncio.ensure_future(server._serve([sock]))
    while not server.started:
        await asyncio.sleep(0)
    yield Listening(door, server, sock.getsockname()[1])
    server.should_exit = True
    await served
    sock.close()


async def test_calls_and_asgi_requests_share_one_kept_alive_connection(listening: Listening) -> None:
    client = await listening.connect()
    for _ in range(3):
        assert await client.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")
        assert await client.ask(b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc") == (
            200,
            b"asgi:abc",
        )


async def test_a_free_segment_matches_one_segment_only(listening: Listening) -> None:
    client = await listening.connect()
    assert await client.ask(b"GET /f/x%20y/call HTTP/1.1\r\nhost: a\r\n\r\n") == (200, b"/f/x y/call")
    for path in (b"/f/a/b/call", b"/f//call", b"/f/call"):
        assert (await client.ask(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n"))[1] == b"asgi:"


async def test_a_method_the_route_does_not_take_goes_to_asgi(listening: Listening) -> None:
    client = await listening.connect()
    assert (await client.ask(b"PUT /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"))[1] == b"asgi:"


async def test_pipelined_requests_of_both_kinds_are_answered_in_order(listening: Listening) -> None:
    client = await listening.connect()
    client.send(
        POST + b"content-length: 1\r\n\r\n1"
        b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n2"
        + POST
        + b"content-length: 1\r\n\r\n3"
        b"GET /other HTTP/1.1\r\nhost: a\r\n\r\n" + POST + b"content-length: 1\r\n\r\n5"
    )
    bodies = [(await client.reply())[2] for _ in range(5)]
    assert bodies == [b"1", b"asgi:2", b"3", b"asgi:", b"5"]


@pytest.mark.parametrize("seed", range(20))
async def test_requests_with_heads_that_are_known_are_read_as_any_others_wherever_they_are_cut(
    listening: Listening, seed: int
) -> None:
    """Once as they are, so that their heads are known; then many times, in pieces that end anywhere."""
    kinds = [
        (POST + b"content-length: 2\r\n\r\nhi", b"hi"),
        (POST + b"content-length: 4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
        (POST + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"/echo"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"GET /f/a%20b/call HTTP/1.1\r\nhost: a\r\n\r\n", b"/f/a b/call"),
        (b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n2", b"asgi:2"),
        (b"\r\nGET /echo HTTP/1.1\r\nhost: a\r\n\r\n", b"/echo"),
        (POST + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
    ]
    client, chance = await listening.connect(), random.Random(seed)
    for request, body in kinds:
        assert await client.ask(request) == (200, body)
    chosen = chance.choices(kinds, k=40)
    stream = b"".join(request for request, _ in chosen)
    while stream:
        size = chance.choice([1, 7, 50, 58, 60, 200])
        client.send(stream[:size])
        stream = stream[size:]
        await client.writer.drain()
        await asyncio.sleep(0)
    assert [(await client.reply())[2] for _ in chosen] == [body for _, body in chosen]


async def test_the_beginning_of_a_head_is_not_taken_for_the_head_before_it(listening: Listening) -> None:
    client = await listening.connect()
    await client.ask(b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n")
    connection: Any = next(iter(listening.server.server_state.connections))
    for size in (1, 10, 30):
        assert await client.ask(b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n") == (200, b"/echo")
        begun = b"GET /f/b/call HTTP/1.1\r\nhost: a\r\n\r\n"
        client.send(begun[:size])
        while connection.idle_since != BUSY:  # it arrives alone
            await asyncio.sleep(0)
        assert await client.ask(begun[size:]) == (200, b"/f/b/call")
    other = await listening.connect()
    assert await other.ask(begun) == (200, b"/f/b/call")


async def test_a_head_that_is_known_but_for_its_end_is_not_over(listening: Listening) -> None:
    client = await listening.connect()
    known = b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n"
    assert await client.ask(known) == (200, b"/echo")
    connection: Any = next(iter(listening.server.server_state.connections))
    for rest in (b"\r\n\r\n", b"b\r\ncontent-length: 2\r\n\r\nhi"):
        assert await client.ask(known) == (200, b"/echo")
        client.send(known.removesuffix(b"\r\n\r\n"))
        while connection.idle_since != BUSY:  # it arrives alone
            await asyncio.sleep(0)
        assert await client.ask(rest) == (200, b"/echo" if rest.isspace() else b"hi")
    assert await client.ask(known) == (200, b"/echo")


async def test_a_client_that_expects_100_continue_hears_it_each_time(listening: Listening) -> None:
    client = await listening.connect()
    for _ in range(3):
        client.send(POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nhi")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        assert (await client.reply())[2] == b"hi"


def test_ever_new_heads_take_no_more_memory_than_a_bounded_number_of_them() -> None:
    heads, head = Heads(), Head(Echo().routes().find(b"/echo", "GET"), Request("GET", "/echo", b""), True)
    for number in range(3 * MAX_HEADS):
        heads.keep(b"%d" % number, head, 0)
        assert heads.find(b"%d" % number) is head
    heads.keep(b"x" * (MAX_HEAD_BYTES + 1), head, 0)
    assert heads.find(b"x" * (MAX_HEAD_BYTES + 1)) is None
    assert sum(heads.find(b"%d" % number) is not None for number in range(3 * MAX_HEADS)) <= MAX_HEADS


async def test_a_pipelined_call_waits_for_the_one_before_it(listening: Listening) -> None:
    client = await listening.connect()
    client.send(
        b"POST /echo?hold HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nA"
        + POST
        + b"content-length: 1\r\n\r\nB"
    )
    while not listening.door.held:
        await asyncio.sleep(0)
    assert listening.door.calls == 1
    listening.door.held[0].reply(200, b"", b"first")
    assert [(await client.reply())[2] for _ in range(2)] == [b"first", b"B"]


async def test_thousands_behind_one_that_is_held_are_answered_in_order(listening: Listening) -> None:
    client = await listening.connect()
    numbers = [b"%04d" % number for number in range(3000)]
    client.send(b"POST /echo?hold HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    client.send(b"".join(POST + b"content-length: 4\r\n\r\n" + number for number in numbers))
    while not listening.door.held:
        await asyncio.sleep(0)
    listening.door.held[0].reply(200, b"", b"held")
    assert [(await client.reply())[2] for _ in range(3001)] == [b"held", *numbers]


async def test_who_is_turned_away_and_asks_again_at_once_is_heard_in_turn_and_delays_nobody_else(
    listening: Listening,
) -> None:
    flood, other = await listening.connect(), await listening.connect()
    numbers = [b"%04d" % number for number in range(TURNED_AWAY_AT_ONCE + 2500)]
    busy = b"POST /echo?busy HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
    flood.send(b"".join(busy + number for number in numbers))
    await flood.reply()
    assert await other.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")
    assert TURNED_AWAY_AT_ONCE <= listening.door.calls - 1 < len(numbers), "the rest waits for its turn"
    assert [(await flood.reply())[2] for _ in numbers[1:]] == numbers[1:], "all of them, in order"
    assert await flood.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")


async def test_who_is_turned_away_and_leaves_is_forgotten(listening: Listening) -> None:
    flood = await listening.connect()
    busy = b"POST /echo?busy HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    flood.send(busy * (TURNED_AWAY_AT_ONCE + 200))
    await flood.reply()
    flood.writer.transport.abort()
    while listening.server.server_state.connections:
        await asyncio.sleep(0)
    other = await listening.connect()
    assert await other.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")


async def test_a_body_in_chunks_and_in_single_bytes_arrives_whole(listening: Listening) -> None:
    client = await listening.connect()
    request = POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    for offset in range(len(request)):
        client.send(request[offset : offset + 1])
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.reply())[2] == b"abcdefg"


async def test_a_client_that_expects_100_continue_hears_it(listening: Listening) -> None:
    client = await listening.connect()
    client.send(POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    assert await client.ask(b"ok") == (200, b"ok")


@pytest.mark.parametrize("head", [b"POST /echo HTTP/1.0\r\n", POST + b"connection: close\r\n"])
async def test_a_connection_that_asks_to_be_closed_is_closed_after_the_reply(
    listening: Listening, head: bytes
) -> None:
    client = await listening.connect()
    client.send(head + b"content-length: 2\r\n\r\nhi")
    _, headers, body = await client.reply()
    assert body == b"hi"
    assert headers["connection"] == "close"
    assert await client.is_closed()


async def test_a_body_too_large_is_refused_and_the_connection_goes_on(listening: Listening) -> None:
    client = await listening.connect()
    status, body = await client.ask(POST + b"content-length: 1001\r\n\r\n" + b"x" * 1001)
    assert (status, body) == (413, b"the event has 1001 bytes, this node takes at most 1000")
    assert listening.door.calls == 0
    assert await client.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")


async def test_a_body_without_end_is_refused_before_its_end(listening: Listening) -> None:
    client = await listening.connect()
    client.send(POST + b"content-length: 100000000\r\n\r\n" + b"x" * 20_000)
    status, headers, _ = await client.reply()
    assert status == 413
    assert headers["connection"] == "close"


async def test_the_door_hears_that_a_client_has_left(listening: Listening) -> None:
    client = await listening.connect()
    client.send(b"POST /echo?hold HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    while not listening.door.held:
        await asyncio.sleep(0)
    client.writer.transport.abort()
    while not listening.door.left:
        await asyncio.sleep(0)
    listening.door.held[0].reply(200, b"", b"too late, and no harm done")
    assert listening.door.left == ["/echo"]


@pytest.mark.parametrize("behind", [0, 1, 5])
async def test_the_door_hears_that_a_client_has_left_however_many_it_has_queued(
    listening: Listening, behind: int
) -> None:
    client = await listening.connect()
    client.send(b"GET /echo?hold HTTP/1.1\r\nhost: a\r\n\r\n" * (2 + behind))
    while not listening.door.held:
        await asyncio.sleep(0)
    listening.door.held[0].reply(200, b"", b"first")
    assert (await client.reply())[2] == b"first"
    client.writer.transport.abort()
    async with asyncio.timeout(10):
        while listening.door.left != ["/echo"]:
            await asyncio.sleep(0)


async def test_one_exchange_has_one_reply(listening: Listening) -> None:
    client = await listening.connect()
    client.send(b"POST /echo?hold HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    while not listening.door.held:
        await asyncio.sleep(0)
    listening.door.held[0].reply(200, b"", b"one")
    listening.door.held[0].reply(200, b"", b"two")
    assert (await client.reply())[2] == b"one"
    assert await client.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")


async def test_a_client_that_expects_100_continue_hears_it_when_it_is_its_turn(listening: Listening) -> None:
    client = await listening.connect()
    client.send(b"GET /echo?hold HTTP/1.1\r\nhost: a\r\n\r\n")
    client.send(POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    while not listening.door.held or not next(iter(listening.server.server_state.connections)).pipeline:
        await asyncio.sleep(0)
    listening.door.held[0].reply(200, b"", b"first")
    assert (await client.reply())[2] == b"first"
    async with asyncio.timeout(10):
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    assert await client.ask(b"hi") == (200, b"hi")


async def test_a_client_that_takes_no_reply_is_heard_again_when_it_does(listening: Listening) -> None:
    client, number = await listening.connect(), 20_000
    client.writer.transport.set_write_buffer_limits(0)
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    body = b"x" * 1000
    for _ in range(number):
        client.send(POST + b"content-length: 1000\r\n\r\n" + body)
    connection: Any = next(iter(listening.server.server_state.connections))
    while not connection.flow.write_paused:
        await asyncio.sleep(0)
    calls = listening.door.calls
    other = await listening.connect()
    assert await other.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")
    assert listening.door.calls == calls + 1 < number
    assert connection.transport.get_write_buffer_size() < 1_000_000
    client.reader._transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(number):
        assert (await client.reply())[2] == body


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /echo",
        b"GET /echo HTTP/1.1\r\n",
        b"GET /echo HTTP/1.1\r\nhost: ",
        POST + b"transfer-encoding: chunked\r\n\r\n1;",
        POST + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
    ],
)
async def test_a_head_without_end_is_refused_before_its_end(listening: Listening, begun: bytes) -> None:
    client = await listening.connect()
    more = b"a: " + b"b" * 10_000 + b"\r\n" if begun.endswith(b"\n") else b"b" * 10_000
    client.send(begun)
    with suppress(ConnectionError):  # hearing why is not certain where we still speak
        async with asyncio.timeout(10):
            while not client.writer.is_closing():
                client.send(more)
                await client.writer.drain()
            await client.reader.read()
    assert listening.door.calls == 0


async def test_offers_to_upgrade_are_declined_however_many_come_at_once(listening: Listening) -> None:
    client, number = await listening.connect(), 2000
    client.send(b"GET /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * number)
    for _ in range(number):
        assert (await client.reply())[2] == b"/echo"


@pytest.mark.parametrize("path", [b"/echo", b"/other"])
@pytest.mark.parametrize("split", [0, 40, 99, 130, 141, 142, 144])
async def test_an_offer_to_upgrade_is_declined_and_the_body_kept(
    listening: Listening, path: bytes, split: int
) -> None:
    client = await listening.connect()
    request = (
        b"POST " + path + b" HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\ncontent-length: 5\r\n\r\nhello"
    )
    client.send(request[:split])
    await client.writer.drain()
    await asyncio.sleep(0)
    assert (await client.ask(request[split:]))[1].endswith(b"hello")
    assert await client.ask(POST + b"content-length: 2\r\n\r\nhi") == (200, b"hi")


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /echo HTTP/1.1\r\nhost : a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
async def test_ambiguous_and_broken_requests_are_refused_and_closed(
    listening: Listening, request_: bytes
) -> None:
    client = await listening.connect()
    client.send(request_)
    assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400")
    assert listening.door.calls == 0


@pytest.mark.parametrize("path", [b"/echo", b"/other"])
async def test_a_connection_idle_after_a_reply_is_closed(listening: Listening, path: bytes) -> None:
    client, busy = await listening.connect(), await listening.connect()
    await client.ask(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    busy.send(b"POST /echo?hold HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    assert await client.is_closed()
    listening.door.held[0].reply(200, b"", b"a call is not idle")
    assert (await busy.reply())[2] == b"a call is not idle"


async def test_head_and_body_of_a_reply_are_one_write(listening: Listening) -> None:
    """Two writes cost 44 ms a call where the client delays its acknowledgements."""
    client = await listening.connect()
    client.send(POST + b"content-length: 2\r\n\r\nhi")
    assert (await client.reader.read(65536)).endswith(b"\r\n\r\nhi")
