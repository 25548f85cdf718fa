"""The least that a warm call can be: a listener that passes bytes on to another process and back.

Usage: python -m bench.relay PORT; no HTTP, no frames, no walls: uvloop, one Unix stream socket, and a process
that answers with what it got. What a warm call takes beyond this is ours; this itself is the machine's.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import cast

import uvloop


def answer(channel: socket.socket) -> None:
    """The other process: gives back what it gets, until there is no more."""
    while data := channel.recv(65536):
        channel.sendall(data)


class Side(asyncio.Protocol):
    """One end of the relay; what it hears, the other end says."""

    def __init__(self) -> None:
        self.other: Side | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.write(data)


async def relay(port: int, channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    _, inside = await loop.create_unix_connection(Side, sock=channel)

    def accept() -> Side:
        client = Side()
        client.other, inside.other = inside, client
        return client

    server = await loop.create_server(accept, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        answer(theirs)
        os._exit(0)
    theirs.close()
    ours.setblocking(False)
    uvloop.run(relay(int(sys.argv[1]), ours))


if __name__ == "__main__":
    main()
