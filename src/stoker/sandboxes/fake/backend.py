"""Makes sandboxes that hold nothing: two pipes, a socket pair and a server in this process.

How a start goes is what `Launch.argv[0]` says: `fake.refuse` (or any path below `/no/`) raises
`SandboxFailed`, `fake.exit` ends with exit code 1 before a word, `fake.silent` never greets,
`fake.slow` takes `Settings.start_s`; everything else starts at once. The calls of `fake.short` say that
they ran for a moment only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import ClassVar

import msgspec

from stoker.errors import SandboxFailed
from stoker.linux.permits import make_permits
from stoker.sandboxes import contract
from stoker.sandboxes.contract import Abilities, Launch, Problem, SandboxSpec
from stoker.sandboxes.fake.server import FLOOD, RUN_NS, SHORT_NS, Server
from stoker.types import MEBIBYTE, Ending, Hits, Usage

_USAGE = Usage(cpu_ms=1.0, memory_peak_bytes=MEBIBYTE)


class Settings(msgspec.Struct, frozen=True):
    """How slow it is."""

    start_s: float = 0.05
    """What `fake.slow` as program takes to greet."""
    load_s: float = 0.05
    """What `fake.slow` as handler takes to load."""

    @classmethod
    def of(cls, settings: object) -> Settings:
        """The node's own settings say nothing of it."""
        return cls()


class Backend(contract.Backend):
    """Sandboxes for tests, in no process of their own."""

    name: ClassVar[str] = "fake"
    abilities = Abilities(walls=False, limits_memory=True, limits_pids=False, measures=True)

    def __init__(self, settings: Settings, launches: tuple[Launch, ...]) -> None:
        self._settings = settings
        self._sandboxes: set[Sandbox] = set()
        self._held: dict[str, list[Callable[[], None]]] = {}

    def __repr__(self) -> str:
        return f"<fake backend, {len(self._sandboxes)} sandboxes>"

    def problems(self) -> list[Problem]:
        return []

    async def open(self) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        for sandbox in tuple(self._sandboxes):
            await sandbox.destroy()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        program = spec.launch.argv[0]
        if program == "fake.refuse" or program.startswith("/no/"):
            raise SandboxFailed(f"cannot start {program!r}: No such file or directory")
        sandbox = Sandbox(spec, self._settings.load_s, self._sandboxes.discard, self.hold)
        self._sandboxes.add(sandbox)
        try:
            await sandbox.start(program, self._settings.start_s)
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    def hold(self, key: str, go_on: Callable[[], None]) -> None:
        """Keep a call that asked for `hold` until its key is released."""
        self._held.setdefault(key, []).append(go_on)

    def release(self, key: str = "") -> int:
        """Let every call held under this key answer; returns how many there were."""
        held = self._held.pop(key, [])
        for go_on in held:
            go_on()
        return len(held)


class Sandbox(contract.Sandbox):
    """One sandbox that is not there."""

    def __init__(
        self,
        spec: SandboxSpec,
        load_s: float,
        forget: Callable[[Sandbox], None],
        hold: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self.id = spec.id
        self.load_s = load_s
        self.hold = hold
        self._forget = forget
        self.code_path = contract.CODE_PATH
        self.workspace_path = contract.WORKSPACE_PATH
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        self.channel, self._inner = socket.socketpair()
        self.channel.setblocking(False)
        self._ours, self._permits = make_permits()
        self.permits = self._ours
        self.stdout, stdout = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.stderr, stderr = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._writers = {1: stdout, 2: stderr}
        self._server: Server | None = None
        self._oom_kills = self._forks_refused = 0
        self._is_full = False
        self._cpu_ms = 1.0
        self._is_destroyed = False

    def __repr__(self) -> str:
        state = "destroyed" if self._is_destroyed else "ended" if self.ended.done() else "running"
        return f"<fake sandbox {self.id}, {state}>"

    async def start(self, program: str, start_s: float) -> None:
        hello = program not in ("fake.silent", "fake.slow", "fake.exit")
        run_ns = SHORT_NS if program == "fake.short" else RUN_NS
        server = self._server = Server(self, hello, run_ns)
        await self._loop.connect_accepted_socket(lambda: server, self._inner)
        if program == "fake.slow":
            self._loop.call_later(start_s, server.greet)
        elif program == "fake.exit":
            self.end(exit_code=1)

    async def destroy(self) -> None:
        if self._is_destroyed:
            return
        self._is_destroyed = True
        self._settle(Ending(destroyed=True, usage=_USAGE))
        if self._server is not None:
            self._server.abort()
        self._inner.close()
        self.channel.close()
        os.close(self._ours)
        os.close(self._permits)
        os.close(self.stdout)
        os.close(self.stderr)
        self._forget(self)

    def usage(self) -> Usage:
        return msgspec.structs.replace(_USAGE, cpu_ms=self._cpu_ms)

    def hits(self) -> Hits:
        return Hits(oom_kills=self._oom_kills, forks_refused=self._forks_refused, is_disk_full=self._is_full)

    # What the server inside can do to us

    def write(self, stream: int, data: bytes) -> None:
        """Write as much as the pipe takes; a test that wants more asks for a flood."""
        if stream in self._writers:
            with contextlib.suppress(BlockingIOError):
                os.write(self._writers[stream], data)

    def take_permit(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return len(os.read(self._permits, 8)) == 8
        return False

    def flood(self) -> None:
        if 1 in self._writers:
            self._loop.add_writer(self._writers[1], self.write, 1, FLOOD)

    def count(self, *, oom_kills: int = 0, forks_refused: int = 0, cpu_ms: float = 0.0) -> None:
        self._oom_kills += oom_kills
        self._forks_refused += forks_refused
        self._cpu_ms += cpu_ms

    def fill(self) -> None:
        self._is_full = True

    def end(self, *, exit_code: int | None = None, signal: int | None = None, oom: bool = False) -> None:
        ending = Ending(
            exit_code=exit_code, signal=signal, out_of_memory=oom, hits=self.hits(), usage=self.usage()
        )
        self._settle(ending)

    def _settle(self, ending: Ending) -> None:
        if self.ended.done():
            return
        self.ended.set_result(ending)
        self._loop.remove_writer(self._writers[1])
        for writer in self._writers.values():
            os.close(writer)
        self._writers = {}
        if self._server is not None:
            self._server.close()
