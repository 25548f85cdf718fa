"""One plain process and what belongs to it, on the node's side."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import msgspec

from stoker.errors import SandboxFailed
from stoker.linux.family import spent
from stoker.linux.permits import make_permits
from stoker.sandboxes import contract
from stoker.types import Ending, Hits, Usage

MAX_MESSAGE = 64 * 1024


class Ends:
    """The descriptors of a sandbox: ours and those that go inside."""

    def __init__(self) -> None:
        with ExitStack() as undoing:
            self.channel, inner = socket.socketpair()
            undoing.callback(self.channel.close)
            undoing.callback(inner.close)
            self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undoing.callback(self.control.close)
            undoing.callback(control.close)
            (self.stdout, stdout), (self.stderr, stderr) = _pipe(undoing), _pipe(undoing)
            self.permits, permits = make_permits()
            undoing.pop_all()
        for ours in (self.channel, self.control):
            ours.setblocking(False)
        self._inner = (control.detach(), stdout, stderr, inner.detach(), permits)

    @property
    def inner(self) -> tuple[int, ...]:
        """As the supervisor takes them: its own socket, then descriptors 1, 2, 3 and 4 inside."""
        return self._inner

    def close_inner(self) -> None:
        for descriptor in self._inner:
            os.close(descriptor)

    def close(self) -> None:
        self.channel.close()
        self.control.close()
        for descriptor in (self.stdout, self.stderr, self.permits):
            os.close(descriptor)


def _pipe(undoing: ExitStack) -> tuple[int, int]:
    """Our end, which never blocks, and the other one."""
    ours, theirs = os.pipe()
    undoing.callback(os.close, ours)
    undoing.callback(os.close, theirs)
    os.set_blocking(ours, False)
    return ours, theirs


class Owner(Protocol):
    """Who made a sandbox."""

    async def clean(self, id: str) -> None:
        """Remove what a sandbox left whose supervisor was killed."""

    def forget(self, sandbox: Sandbox) -> None:
        """It is gone."""


class Sandbox(contract.Sandbox):
    """One sandbox, as its supervisor tells of it."""

    def __init__(self, id: str, paths: tuple[str, str], ends: Ends, owner: Owner) -> None:
        self.id = id
        self.code_path, self.workspace_path = paths
        self.channel = ends.channel
        self.stdout, self.stderr, self.permits = ends.stdout, ends.stderr, ends.permits
        self._ends = ends
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        self._started: asyncio.Future[int] = self._loop.create_future()
        self._silent: asyncio.Future[None] = self._loop.create_future()
        self._removal: asyncio.Task[None] | None = None
        self._pid = self._supervisor = 0
        self._oom_kills = self._peak_bytes = 0
        self._is_gone = False
        self._loop.add_reader(ends.control.fileno(), self._hear)

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else f"running as {self._pid}" if self._pid else "starting"
        return f"<process sandbox {self.id}, {state}>"

    async def wait_started(self) -> None:
        """Return once the program runs. Raises `SandboxFailed`."""
        self._pid = await self._started

    async def destroy(self) -> None:
        if self._removal is None:
            self._removal = self._loop.create_task(self._remove())
        cancelled = None
        while not self._removal.done():
            try:
                await asyncio.shield(self._removal)
            except asyncio.CancelledError as error:
                cancelled = error  # HOLDS: nothing is left when we return, however we do
        if cancelled is not None:
            raise cancelled

    async def _remove(self) -> None:
        with suppress(OSError):  # it has gone by itself
            self._ends.control.shutdown(socket.SHUT_WR)
        await self._silent
        if not self._is_gone:
            await self._owner.clean(self.id)
        self._settle(Ending(destroyed=True))
        self._ends.close()
        self._owner.forget(self)

    def usage(self) -> Usage:
        if self.ended.done():
            return self.ended.result().usage
        if self._supervisor == 0:
            return Usage()
        cpu_s, largest = spent(self._supervisor)
        self._peak_bytes = max(self._peak_bytes, largest)
        return Usage(cpu_ms=cpu_s * 1000, memory_peak_bytes=self._peak_bytes)

    def hits(self) -> Hits:
        if not self._silent.done():
            self._hear()
        return Hits(oom_kills=self._oom_kills)

    # What the supervisor says

    def _hear(self) -> None:
        """Take every message that is there."""
        while not self._silent.done():
            try:
                message = self._ends.control.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if message:
                self._take(msgspec.json.decode(message))
            else:
                self._fall_silent()

    def _take(self, message: dict[str, Any]) -> None:
        if "started" in message and not self._started.done():
            self._supervisor = message["supervisor"]
            self._started.set_result(message["started"])
        elif "failed" in message and not self._started.done():
            self._started.set_exception(SandboxFailed(message["failed"]))
        elif "oom_kills" in message:
            self._oom_kills = message["oom_kills"]
        elif "ended" in message:
            self._settle(self._read_ending(message["ended"]))
        elif "gone" in message:
            self._is_gone = True

    def _read_ending(self, told: dict[str, Any]) -> Ending:
        usage = Usage(cpu_ms=told["cpu_ms"], memory_peak_bytes=told["peak_bytes"])
        if self._removal is not None:
            return Ending(destroyed=True, hits=Hits(oom_kills=self._oom_kills), usage=usage)
        return Ending(
            exit_code=told["exit_code"],
            signal=told["signal"],
            out_of_memory=told["out_of_memory"],
            hits=Hits(oom_kills=self._oom_kills),
            usage=usage,
        )

    def _fall_silent(self) -> None:
        self._loop.remove_reader(self._ends.control.fileno())
        self._silent.set_result(None)
        if not self._started.done():
            self._started.set_exception(SandboxFailed("the sandbox's supervisor ended before it began"))
            self._started.exception()  # heard, even when nobody waits for it any more
        self._settle(Ending())

    def _settle(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)
