"""Makes sandboxes out of plain processes, through a keeper beside the node (see `supervisor`)."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec

from stoker.errors import BackendUnavailable, SandboxFailed
from stoker.sandboxes import contract
from stoker.sandboxes.contract import CODE_PATH, WORKSPACE_PATH, Abilities, Launch, Problem, SandboxSpec
from stoker.sandboxes.process.keeper import Keeper
from stoker.sandboxes.process.leftovers import sweep
from stoker.sandboxes.process.sandbox import Ends, Sandbox
from stoker.sandboxes.process.translation import Translation
from stoker.types import MEBIBYTE

DESCRIPTORS = 1024
"""What a program may have open; the usual soft limit of a login."""


class HasHome(Protocol):
    """The part of the node's settings that is needed here."""

    @property
    def home(self) -> Path: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node decides about its plain processes."""

    root: Path = msgspec.field(default_factory=lambda: Path(tempfile.gettempdir(), f"stoker-{os.getuid()}"))
    """Where scratch folders are made; this node's alone, and emptied when it starts."""

    @classmethod
    def of(cls, settings: HasHome) -> Settings:
        """What the node's own settings say."""
        return cls(root=settings.home / "scratch")


class Backend(contract.Backend):
    """Plain processes."""

    name: ClassVar[str] = "process"
    # Memory is watched, not walled: see SECURITY.md for what that holds.
    abilities = Abilities(walls=False, limits_memory=True, limits_pids=False, measures=True)

    def __init__(self, settings: Settings, launches: tuple[Launch, ...]) -> None:
        self._root = settings.root
        self._sandboxes: set[Sandbox] = set()
        self._keeper: Keeper | None = None
        self._lock = -1

    def __repr__(self) -> str:
        return f"<process backend, {'open' if self._keeper else 'closed'}, {len(self._sandboxes)} sandboxes>"

    def problems(self) -> list[Problem]:
        if not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
            return [Problem("this kernel does not list a process's children in /proc", "mount /proc")]
        return []

    async def open(self) -> None:
        self._take_root()
        await asyncio.to_thread(sweep, self._root)
        self._keeper = Keeper()
        await self._keeper.start()

    def _take_root(self) -> None:
        """Make the folder ours alone, for as long as this process lives. Raises `BackendUnavailable`."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._let_root_go()
            raise BackendUnavailable(
                f"another node uses {self._root}; give each node a home of its own"
            ) from None
        except OSError as error:
            raise BackendUnavailable(f"cannot use {self._root} for scratch: {error.strerror}") from error

    async def close(self) -> None:
        for sandbox in tuple(self._sandboxes):
            await sandbox.destroy()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.close()
        self._let_root_go()

    def _let_root_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def create(self, spec: SandboxSpec) -> Sandbox:
        if self._keeper is None:
            raise BackendUnavailable("the process backend is not open")
        scratch = self._root / spec.id
        try:
            scratch.mkdir(mode=0o700)
        except OSError as error:
            raise SandboxFailed(f"cannot make {scratch}: {error.strerror}") from error
        return await self._started(spec, await self._order(self._keeper, spec, scratch))

    async def _order(self, keeper: Keeper, spec: SandboxSpec, scratch: Path) -> Ends:
        """Have its supervisor forked; our ends of its descriptors."""
        with ExitStack() as undoing:
            undoing.callback(os.rmdir, scratch)
            try:
                ends = Ends()
                undoing.callback(ends.close)
                try:
                    await keeper.order(_describe(spec, str(scratch)), ends.inner)
                finally:
                    ends.close_inner()
            except OSError as error:
                raise SandboxFailed(f"cannot start {spec.launch.name}: {error.strerror}") from error
            undoing.pop_all()
        return ends

    async def _started(self, spec: SandboxSpec, ends: Ends) -> Sandbox:
        paths = (str(spec.code or CODE_PATH), str(spec.workspace or WORKSPACE_PATH))
        sandbox = Sandbox(spec.id, paths, ends, self)
        self._sandboxes.add(sandbox)
        try:
            await sandbox.wait_started()
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def clean(self, id: str) -> None:
        await asyncio.to_thread(sweep, self._root, id)

    def forget(self, sandbox: Sandbox) -> None:
        self._sandboxes.discard(sandbox)


def _describe(spec: SandboxSpec, scratch: str) -> bytes:
    """What the supervisor is to do."""
    translation = Translation(spec, scratch)
    # TMPDIR is also what a process is known by, should its supervisor be killed.
    own = {"HOME": scratch, "TMPDIR": scratch}
    order = {
        "argv": translation.arguments(spec.launch.argv),
        "environment": translation.environment(spec.launch.environment) | own,
        "scratch": scratch,
        "memory_bytes": spec.limits.memory_mb * MEBIBYTE,
        "file_bytes": -1 if spec.workspace else spec.limits.scratch_mb * MEBIBYTE,
        "descriptors": DESCRIPTORS,
    }
    return json.dumps(order).encode()
