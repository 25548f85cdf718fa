"""The helper's side of the resolver: starts it, tells it who may ask for what, answers what it asks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

from stoker.sandboxes.lean.egress.frames import (
    LEAVE,
    LEAVE_BODY,
    MAX_PACKET,
    OPEN,
    OPENED,
    OPENED_BODY,
    SETTLE,
    Open,
    pack_client,
)
from stoker.sandboxes.lean.packets import pack_parts

PORT = 53
IP_FREEBIND, SO_SNDBUFFORCE = 15, 32
MOST_SAID_BYTES = 64 * 1024 * 1024
DEATHS, WITHIN_S = 5, 10.0  # so many in so short a time, and the next is started only when it is needed
HIGH = 10
BACKLOG = 128
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


class Watch(Protocol):
    """The part of the helper's loop that is needed here: whom to call when there is something to read."""

    def __call__(self, descriptor: int, call: Callable[[], object] | None) -> None: ...


class HasResolver(Protocol):
    """The part of the node's words that is needed here."""

    @property
    def private(self) -> str: ...
    @property
    def servers(self) -> tuple[tuple[str, int], ...]: ...
    @property
    def resolver_uid(self) -> int: ...
    @property
    def resolver(self) -> tuple[str, ...]: ...
    @property
    def filters(self) -> tuple[bytes, ...]: ...


class Clerk:
    """Keeps a resolver running, and its sockets open while there is none."""

    def __init__(
        self, tag: str, words: HasResolver, gateway: str, watch: Watch, open_: Callable[[Open], bool]
    ) -> None:
        self._tag = tag
        self._words = words
        self._gateway = gateway
        self._watch = watch
        self._open = open_
        self._sockets: list[socket.socket] = []
        self._control: socket.socket | None = None
        self._clients: dict[IPv4Address, bytes] = {}
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._pid = 0

    def __repr__(self) -> str:
        return f"<Clerk of {len(self._clients)} clients, resolver {self._pid or 'not running'}>"

    @property
    def pids(self) -> set[int]:
        return {self._pid} if self._pid else set()

    def open(self) -> None:
        """The sockets are made while this is root: the resolver itself could not have that port."""
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            listening = socket.socket(socket.AF_INET, kind)
            self._sockets.append(listening)
            listening.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)  # no link has the address yet
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            listening.bind((self._gateway, PORT))
        self._sockets[1].listen(BACKLOG)
        self._start()

    def see_to_it(self) -> None:
        """Let there be a resolver."""
        if self._control is None:
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # High numbers first, lest one is overwritten before it is copied.
        given = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH) for one in (theirs, *self._sockets)]
        actions = [(os.POSIX_SPAWN_DUP2, source, 3 + at) for at, source in enumerate(given)]
        argv = self._words.resolver
        try:
            self._pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsigdef=SIGNALS)
        finally:
            theirs.close()
            for descriptor in given:
                os.close(descriptor)
        # Room for a word on each of four thousand sandboxes: whoever speaks does not wait for who starts.
        ours.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, MOST_SAID_BYTES)
        self._control = ours
        words = self._words
        servers = " ".join(f"{address} {port}" for address, port in words.servers)
        parts = [str(words.resolver_uid).encode(), words.private.encode(), servers.encode(), *words.filters]
        ours.send(bytes([SETTLE]) + pack_parts(parts))
        ours.setblocking(False)
        self._watch(ours.fileno(), self._read)
        for client in self._clients.values():
            self._say(client)

    def welcome(self, address: IPv4Address, serial: int, targets: tuple[str, ...]) -> None:
        """Let the sandbox at this address ask."""
        self._clients[address] = pack_client(int(address), serial, targets)
        self._say(self._clients[address])

    def take_leave(self, address: IPv4Address) -> None:
        if self._clients.pop(address, None) is not None:
            self._say(LEAVE_BODY.pack(LEAVE, int(address)))

    def _say(self, packet: bytes) -> None:
        """One that does not listen is of no use: it is ended, and the next one is told everything."""
        if self._control is None:
            return
        try:
            self._control.send(packet)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EAGAIN):
                raise
            os.kill(self._pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._control is not None
        try:
            packet = self._control.recv(MAX_PACKET)
        except ConnectionResetError:
            packet = b""
        if not packet:
            self._end()
        elif packet[0] == OPEN:
            self._answer(packet)

    def _answer(self, packet: bytes) -> None:
        try:
            asked = Open.unpack(packet)
        except struct.error:
            return
        try:
            is_open = self._open(asked)
        except OSError:
            is_open = False
        self._say(OPENED_BODY.pack(OPENED, asked.question, is_open))

    def _end(self) -> None:
        """It has ended, which it never should."""
        self._forget()
        self._deaths.append(time.monotonic())
        if len(self._deaths) < DEATHS or self._deaths[-1] - self._deaths[0] > WITHIN_S:
            self._start()

    def _forget(self) -> None:
        if self._control is not None:
            self._watch(self._control.fileno(), None)
            self._control.close()
            self._control = None
            os.kill(self._pid, signal.SIGKILL)  # ours and not yet waited for: nobody else has its number
            os.waitpid(self._pid, 0)
            self._pid = 0

    def close(self) -> None:
        while self._sockets:
            self._sockets.pop().close()
        self._forget()
