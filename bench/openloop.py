"""A client whose requests have their times: none waits for those before, and its time is when it begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Sent(msgspec.Struct, frozen=True):
    """What became of one request."""

    status: int
    took_s: float
    """From the time at which it was to be sent to the last byte of its reply."""
    ended_s: float
    """Counted from the beginning, as its own time."""
    head: bytes


class Client:
    """Sends on as many keep-alive connections as there are requests under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Connection] = []

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *how: object) -> None:
        for _, writer in self._free:
            writer.close()

    async def send(self, requests: Sequence[tuple[float, bytes]]) -> list[Sent]:
        """Each request at its second from now; what became of them, in order."""
        begin = time.monotonic()
        return await asyncio.gather(*(self._one(begin, at_s, data) for at_s, data in requests))

    async def serial(self, data: bytes, until: float) -> list[Sent]:
        """One after the other until a time on the monotonic clock."""
        done = []
        while (now := time.monotonic()) < until:
            done.append(await self._one(now, 0.0, data))
        return done

    async def _one(self, begin: float, at_s: float, data: bytes) -> Sent:
        await asyncio.sleep(begin + at_s - time.monotonic())
        connection = (
            self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        )
        reader, writer = connection
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        self._free.append((reader, writer))
        ended_s = time.monotonic() - begin
        return Sent(int(head[9:12]), ended_s - at_s, ended_s, head)

    async def _connection(self) -> Connection:
        return self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
