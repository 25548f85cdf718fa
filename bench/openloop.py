"""A client whose requests have their times: none waits for those before, and its time is when it begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
IDLE_S = 3.0
"""A server may close a connection that nobody uses; this one does so after five seconds."""


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
        self._free: list[tuple[float, Connection]] = []
        """Since when each is free; the newest last."""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *how: object) -> None:
        self._close_free()

    def _close_free(self) -> None:
        for _, (_, writer) in self._free:
            writer.close()
        self._free.clear()

    async def send(self, requests: Sequence[tuple[float, bytes]]) -> list[Sent]:
        """Each request at its second from now, of times that ascend; what became of them, in order.

        A request is made when its time has come: a minute of them, made at once, took half a second, in which
        those of the first half second were late.
        """
        begin = time.monotonic()
        under_way: list[asyncio.Task[Sent]] = []
        for at_s, data in requests:
            await asyncio.sleep(begin + at_s - time.monotonic())
            under_way.append(asyncio.create_task(self._one(begin, at_s, data)))
        return await asyncio.gather(*under_way)

    async def serial(self, data: bytes, until: float) -> list[Sent]:
        """One after the other until a time on the monotonic clock."""
        done = []
        while (now := time.monotonic()) < until:
            done.append(await self._one(now, 0.0, data))
        return done

    async def _one(self, begin: float, at_s: float, data: bytes) -> Sent:
        reader, writer = await self._connection()
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        self._free.append((time.monotonic(), (reader, writer)))
        ended_s = time.monotonic() - begin
        return Sent(int(head[9:12]), ended_s - at_s, ended_s, head)

    async def _connection(self) -> Connection:
        if self._free and time.monotonic() - self._free[-1][0] < IDLE_S:
            return self._free.pop()[1]
        self._close_free()
        return await asyncio.open_connection("127.0.0.1", self._port)
