"""What a backend promises: a place where code runs, and one byte stream into it.

A backend knows nothing of languages: it starts what a `Launch` says and hands out the stream on
which the started program speaks frames (see `stoker.runtimes.wire`). A runtime knows nothing of
backends. So they add rather than multiply.

Seen from inside, on every backend: descriptor 3 is the channel (a Unix stream socket), 0 is
`/dev/null`, 1 and 2 are pipes that the node reads, 4 is the pipe of permits where the backend
has one (see `docs/wire.md`); nothing else is open. The environment holds
what `Launch.environment` says and nothing else.

HOLDS (invariant 6): when `destroy()` returns, or `create()` raises, no process, mount, cgroup,
netns, device, container, VM or file of the sandbox is left; also at the next start after a
`kill -9` of the node. Every await may be cancelled.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import msgspec

from stoker.types import Ending, Hits, Limits, Network, Usage

CHANNEL_FD = 3
PERMITS_FD = 4
CODE_PATH = "/app/function"
WORKSPACE_PATH = "/build"


class Show(msgspec.Struct, frozen=True):
    """A host file or folder that a sandbox sees, read-only, at a path of our own."""

    source: str
    target: str


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to start inside; a runtime's answer, the same for every backend.

    Paths in `argv` and `environment` are those seen inside. A backend without walls translates them
    with `shows` (a path at or below a `target` becomes the same path at or below its `source`).
    """

    name: str
    """`<runtime>-<version>`, for example `python-3.11.7`: one zygote or image for each."""
    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    shows: tuple[Show, ...] = ()
    fork: str | None = None
    """For interpreters that can be forked from a zygote: the path (inside) of a Python file whose
    `serve(channel_fd: int) -> None` is what `argv` would have run. None: always execute `argv`."""

    def executed(self) -> Launch:
        """The same, never forked: each sandbox has an interpreter of its own."""
        return msgspec.structs.replace(self, name=f"{self.name}-own", fork=None)


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox to be made."""

    id: str
    """Unique on this node, at most 64 of `[a-z0-9_.-]`."""
    launch: Launch
    limits: Limits
    code: Path | None = None
    """A folder of the host, shown read-only at `CODE_PATH`."""
    workspace: Path | None = None
    """A folder of the host, writable at `WORKSPACE_PATH`; for builds only."""
    network: Network = Network.NONE
    opening: bytes = b""
    """What the node will say first on the channel; a backend that can say it earlier does so (`is_opened`).
    It speaks of the code as being at `CODE_PATH`."""
    lineage: int = 0
    """Forked from the same start of the interpreter as the sandbox that told this number, if that can still
    be had: what was frozen in the one can be continued in the other. 0: any."""
    egress: tuple[str, ...] = ()
    """Narrows `Network.EGRESS` to these targets (see `stoker.egress`); empty: it is not narrowed."""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can hold; what it cannot, `SECURITY.md` says and the suite skips."""

    walls: bool
    """Code inside cannot reach the host."""
    limits_memory: bool
    limits_pids: bool
    freezes: bool = False
    """What a forked program has loaded in one of its sandboxes can be continued in others."""
    measures: bool
    """`Ending.usage` and `Sandbox.usage()` tell CPU time and peak memory."""
    tells_memory: bool = False
    """`Sandbox.held_bytes()` tells, and all sandboxes together are held to what the node gives them."""


class Problem(msgspec.Struct, frozen=True):
    """Why this machine cannot run a backend or a runtime, and what to do about it."""

    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class Sandbox(ABC):
    """One live sandbox. Made by `Backend.create`; belongs to whoever asked for it."""

    id: str
    channel: socket.socket
    """Our end of the stream: connected, non-blocking."""
    stdout: int
    stderr: int
    """Our ends of what is written to descriptors 1 and 2 inside: non-blocking, readable."""
    permits: int | None = None
    """Our end of the pipe of permits (`linux.permits`); None: calls never queue in this sandbox."""
    is_opened: bool = False
    """The opening of its spec has been said."""
    code_path: str
    """Where the code folder is, seen from inside."""
    workspace_path: str
    lineage: int = 0
    """See `SandboxSpec.lineage`."""
    ended: asyncio.Future[Ending]
    """Done once, when the program inside has ended or the sandbox was destroyed. Never raises."""

    @abstractmethod
    async def destroy(self) -> None:
        """End everything inside and remove every trace. Idempotent; closes our descriptors too."""

    @abstractmethod
    def usage(self) -> Usage:
        """What it has used so far; may cost a system call or two."""

    @abstractmethod
    def hits(self) -> Hits:
        """How often it has met its limits so far; may cost a few system calls."""

    def held_bytes(self) -> int | None:
        """The memory it holds now, the kernel's for it included; None where nobody can tell."""
        return None


class Backend(ABC):
    """One way to make sandboxes. Constructed unopened: `prepare()`, then `open()`, then `create()`."""

    name: ClassVar[str]
    abilities: Abilities
    on_spares: Callable[[int, int], None] = staticmethod(lambda number, memory_mb: None)
    """Told whenever that changes: how many spares there may be at this moment, sandboxes that are nobody's
    yet, and the megabytes that they may hold."""

    on_renewed: Callable[[int], None] = staticmethod(lambda lineage: None)
    """Told a lineage of which from now on sandboxes are made only where they are asked for by its number, and
    not for ever: what was frozen of it should be made anew, and the lineage then be released."""
    on_lineage_over: Callable[[int], None] = staticmethod(lambda lineage: None)
    """Told a lineage of which no sandboxes can be had any more."""

    @abstractmethod
    def problems(self) -> list[Problem]:
        """Why this machine cannot; empty when it can. Cheap, without side effects."""

    def lacks(self, network: Network) -> Problem | None:
        """Why it cannot give sandboxes this network; None when it can. Cheap, without side effects."""
        return None

    def weaknesses(self) -> list[Problem]:
        """What it cannot hold here although elsewhere it can; certain once it is open. Cheap."""
        return []

    def prepare(self) -> None:
        """Do what needs the privileges the node was started with; it gives them up afterwards. Before any
        thread or event loop exists, so it may fork. Raises `BackendUnavailable`."""

    @abstractmethod
    async def open(self) -> None:
        """Start what outlives single sandboxes; remove what an earlier life of this node left."""

    async def wait_broken(self) -> str:
        """Return, with the reason, once no sandbox can be made any more; the node then stops."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    @abstractmethod
    async def close(self) -> None:
        """Destroy every sandbox and everything else of ours. Idempotent."""

    def bound_spares(self, memory_mb: int) -> None:
        """Let spares hold no more than that, from now on; what is above it goes."""

    def release_lineage(self, lineage: int) -> None:
        """Nobody will ask for sandboxes of that lineage any more."""

    def expect(self, spec: SandboxSpec) -> None:
        """Be ready for who asks for a sandbox such as this one; nobody has yet. Before it is open: no more
        than a note."""

    @abstractmethod
    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Start one sandbox. Returns when the program inside is being started; that it came up is
        what its first frame says. Raises `SandboxFailed`, `BackendUnavailable`."""
