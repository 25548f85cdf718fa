"""Who asks, what he may ask for, and that nobody asks so much that others wait."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from collections.abc import Coroutine
from ipaddress import IPv4Address

import dns.message
import dns.rcode
import dns.rdatatype

from stoker.egress import Target, read_target
from stoker.sandboxes.lean.egress.frames import (
    CLIENT,
    LEAVE,
    LEAVE_BODY,
    MAX_PACKET,
    MOST_ADDRESSES,
    OPENED,
    OPENED_BODY,
    Open,
    unpack_client,
)
from stoker.sandboxes.lean.resolver import answering
from stoker.sandboxes.lean.resolver.asking import Upstream

QUESTIONS, QUESTIONS_OF_ALL = 64, 2048  # being answered at a time
STREAMS = 4  # of one sandbox at a time
STREAM_S = 15.0
MOST_BYTES = 4096  # of a question
LENGTH = struct.Struct("!H")


class Client:
    """One sandbox, for as long as it has its address."""

    def __init__(self, address: int, serial: int, targets: tuple[Target, ...]) -> None:
        self.address = address
        self.serial = serial
        self.targets = targets
        self.questions = 0
        self.streams = 0

    def __repr__(self) -> str:
        return f"<Client {IPv4Address(self.address)}, {self.questions} questions>"

    def chosen(self, name: str) -> int:
        """Which of its targets a name is, a bit for each."""
        return sum(1 << at for at, target in enumerate(self.targets) if target.name and target.means(name))


class Resolver:
    """Everything the resolver has."""

    def __init__(
        self,
        control: socket.socket,
        sockets: tuple[socket.socket, socket.socket],
        upstream: Upstream,
        private: tuple[Target, ...],
    ) -> None:
        self._control = control
        self._datagrams, self._streams = sockets
        self._upstream = upstream
        self._private = private
        self._clients: dict[str, Client] = {}
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Resolver for {len(self._clients)}, {len(self._tasks)} at work>"

    async def serve(self) -> None:
        """Until the helper ends, which ends this process."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # what a stranger's bytes break is his answer alone
        loop.add_reader(self._control, self._hear)
        loop.add_reader(self._datagrams, self._receive)
        loop.add_reader(self._streams, self._accept)
        await loop.create_future()

    # What the helper says

    def _hear(self) -> None:
        while True:
            try:
                packet = self._control.recv(MAX_PACKET)
            except BlockingIOError:
                return
            if not packet:
                os._exit(0)
            if packet[0] == CLIENT:
                address, serial, targets = unpack_client(packet)
                client = Client(address, serial, tuple(map(read_target, targets)))
                self._clients[str(IPv4Address(address))] = client
            elif packet[0] == LEAVE:
                self._clients.pop(str(IPv4Address(LEAVE_BODY.unpack(packet)[1])), None)
            elif packet[0] == OPENED:
                _, question, is_open = OPENED_BODY.unpack(packet)
                asked = self._asked.pop(question, None)
                if asked is not None and not asked.done():
                    asked.set_result(bool(is_open))

    def _client(self, address: str) -> Client | None:
        if address not in self._clients:
            self._hear()  # its welcome may lie behind its first question
        return self._clients.get(address)

    # What sandboxes say

    def _receive(self) -> None:
        try:
            wire, sender = self._datagrams.recvfrom(MOST_BYTES)
        except OSError:
            return
        client = self._client(sender[0])
        if client is not None:
            self._spawn(self._reply(wire, client, sender))

    async def _reply(self, wire: bytes, client: Client, sender: tuple[str, int]) -> None:
        reply = await self.answer(wire, client, is_stream=False)
        if reply is not None:
            try:
                self._datagrams.sendto(reply, sender)
            except OSError:
                pass  # it has gone, or takes nothing: a datagram may be lost

    def _accept(self) -> None:
        try:
            stream, sender = self._streams.accept()
        except OSError:
            return
        client = self._client(sender[0])
        if client is None or client.streams >= STREAMS:
            stream.close()
            return
        stream.setblocking(False)
        client.streams += 1
        self._spawn(self._serve_stream(stream, client))

    async def _serve_stream(self, stream: socket.socket, client: Client) -> None:
        try:
            async with asyncio.timeout(STREAM_S):
                while await self._serve_question(stream, client):
                    pass
        except (OSError, TimeoutError):
            pass
        finally:
            client.streams -= 1
            stream.close()

    async def _serve_question(self, stream: socket.socket, client: Client) -> bool:
        head = await _read(stream, LENGTH.size)
        length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
        if not 0 < length <= MOST_BYTES:
            return False
        wire = await _read(stream, length)
        reply = await self.answer(wire, client, is_stream=True) if len(wire) == length else None
        if reply is None:
            return False
        await asyncio.get_running_loop().sock_sendall(stream, LENGTH.pack(len(reply)) + reply)
        return True

    # The answer

    async def answer(self, wire: bytes, client: Client, is_stream: bool) -> bytes | None:
        """None where there is nothing to say."""
        query = answering.read(wire)
        if query is None:
            return None
        if client.questions >= QUESTIONS or len(self._tasks) > QUESTIONS_OF_ALL:
            return answering.on_wire(query, answering.plain(query, dns.rcode.SERVFAIL), is_stream)
        client.questions += 1
        try:
            return answering.on_wire(query, await self._resolve(query, client), is_stream)
        finally:
            client.questions -= 1

    async def _resolve(self, query: dns.message.Message, client: Client) -> dns.message.Message:
        code = answering.refusal(query)
        if code is not None:
            return answering.plain(query, code)
        chosen = client.chosen(answering.name_of(query))
        if client.targets and not chosen:
            return answering.plain(query, dns.rcode.NXDOMAIN)
        question = query.question[0]
        if question.rdtype in answering.EMPTY:
            return answering.plain(query, dns.rcode.NOERROR)
        found = await self._upstream.ask(question.name, question.rdtype)
        if found is None:
            return answering.plain(query, dns.rcode.SERVFAIL)
        reply = answering.filtered(query, found, self._private)
        if chosen and question.rdtype == dns.rdatatype.A and not await self._open(client, chosen, reply):
            return answering.plain(query, dns.rcode.SERVFAIL)
        return reply

    async def _open(self, client: Client, chosen: int, reply: dns.message.Message) -> bool:
        """Have the reply's addresses opened: before the reply is sent, or the first connection would fail."""
        addresses, span_s = answering.addresses(reply, MOST_ADDRESSES)
        if not addresses:
            return True
        number = next(self._numbers) & 0xFFFFFFFF
        opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[number] = opened
        numbers = tuple(map(int, addresses))
        self._control.send(Open(number, client.address, client.serial, span_s, chosen, numbers).pack())
        return await opened

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read(stream: socket.socket, length: int) -> bytes:
    """So many bytes, fewer at the end of the stream."""
    data = b""
    while len(data) < length:
        more = await asyncio.get_running_loop().sock_recv(stream, length - len(data))
        if not more:
            break
        data += more
    return data
