"""The node's hold on the keeper: the process beside it that forks a supervisor for each order."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence

# What the keeper starts from: our modules, but not this package's `__init__`, which would bring the node in.
START = """\
import sys, types
room = types.ModuleType("stoker.sandboxes.process")
room.__path__ = [sys.argv[1] + "/stoker/sandboxes/process"]
sys.path.append(sys.argv[1])
sys.modules[room.__name__] = room
from stoker.sandboxes.process.supervisor import main
main()
"""


class Keeper:
    """Takes orders as long as it is open; started anew when it was killed."""

    def __init__(self) -> None:
        self._link: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Keeper {self._process.pid if self._process else 'not running'}>"

    async def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = await self._start_process(theirs.fileno())
            self._link = ours
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    async def _start_process(self, link: int) -> asyncio.subprocess.Process:
        source = __file__.rsplit("/stoker/", 1)[0]
        # Its own session: a Ctrl-C in the node's terminal is for the node to act on.
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", START, source, str(link),
            stdin=asyncio.subprocess.DEVNULL,
            env={},
            pass_fds=[link],
            start_new_session=True,
        )  # fmt: skip

    async def close(self) -> None:
        """Let it end. Supervisors that it forked live on until their sandboxes end."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            await self._process.wait()
            self._process = None

    async def order(self, order: bytes, descriptors: Sequence[int]) -> None:
        """Have a supervisor forked. Raises OSError."""
        try:
            await self._send(order, descriptors)
        except ConnectionError:
            await self._start_again(self._link)
            await self._send(order, descriptors)

    async def _start_again(self, dead: socket.socket | None) -> None:
        async with self._starting:
            if self._link is dead:
                await self.close()
                await self.start()

    async def _send(self, order: bytes, descriptors: Sequence[int]) -> None:
        while True:
            if self._link is None:
                raise ConnectionError("the process backend is not open")
            try:
                socket.send_fds(self._link, [order], descriptors)
                return
            except BlockingIOError:
                await _wait_writable(self._link)


async def _wait_writable(link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(link.fileno(), writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(link.fileno())
