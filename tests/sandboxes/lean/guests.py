"""Sandboxes for tests of the walls: a tiny server inside, and what one says to it."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.linux.places import MOST_FREE
from stoker.sandboxes.contract import Launch, Sandbox, Show
from stoker.sandboxes.lean import Backend

SERVER = Path(__file__).with_name("tiny_server.py")
SERVER_INSIDE = "/app/runtime/server.py"
ENVIRONMENT = {"HOME": "/tmp", "LC_ALL": "C.UTF-8", "ANSWER": "42"}
HEADER = struct.Struct("!IBI")


def launch(fork: bool = True, argv: tuple[str, ...] | None = None, name: str = "") -> Launch:
    """The tiny server in this very interpreter, forked from a zygote or executed."""
    base, binary = Path(sys.base_prefix), Path(sys.executable).resolve()
    shows = [Show(str(SERVER), SERVER_INSIDE)]
    if not base.is_relative_to("/usr"):
        shows.append(Show(str(base), "/opt/python"))
        binary = Path("/opt/python") / binary.relative_to(base.resolve())
    return Launch(
        name=name or ("forked" if fork else "executed"),
        argv=argv or (str(binary), "-I", "-S", SERVER_INSIDE),
        environment=ENVIRONMENT,
        shows=tuple(shows),
        fork=SERVER_INSIDE if fork else None,
    )


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to be another user outside")

FORKED, EXECUTED = launch(), launch(fork=False)
MISSING = launch(fork=False, argv=("/no/such/program",), name="missing")
BROKEN = launch(fork=True, argv=("/no/such/python", SERVER_INSIDE), name="broken")
LAUNCHES = (FORKED, EXECUTED, MISSING, BROKEN)


class Raised(Exception):
    """What the code inside raised, in its own words."""


async def hello(sandbox: Sandbox) -> dict[str, Any]:
    _, payload = await _frame(sandbox)
    greeting: dict[str, Any] = json.loads(payload)
    return greeting


async def run(sandbox: Sandbox, source: str) -> Any:
    """Run Python inside; what it leaves in `answer` comes back. Raises `Raised`, `EOFError`."""
    await order(sandbox, source)
    return await answer(sandbox)


async def answer(sandbox: Sandbox) -> Any:
    """What comes back of what it was told to run. Raises `Raised`, `EOFError`."""
    kind, payload = await _frame(sandbox)
    if kind == 0x84:
        raise Raised(json.loads(payload))
    return json.loads(payload)


async def order(sandbox: Sandbox, source: str) -> None:
    """Run Python that will not answer."""
    await asyncio.get_running_loop().sock_sendall(sandbox.channel, frame(source))


def frame(source: str) -> bytes:
    """What tells it to run this."""
    event = source.encode()
    return HEADER.pack(len(event), 2, 1) + event


async def read_all(descriptor: int) -> bytes:
    """What is written to one of the pipes, until its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.dup(descriptor), "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        return await reader.read()
    finally:
        transport.close()
        await asyncio.sleep(0)  # it closes its descriptor in the loop's next turn


async def _frame(sandbox: Sandbox) -> tuple[int, bytes]:
    length, kind, _ = HEADER.unpack(await _exactly(sandbox, HEADER.size))
    return kind, await _exactly(sandbox, length)


async def _exactly(sandbox: Sandbox, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(sandbox.channel, size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


async def seen_by_the_host(sandbox: Sandbox) -> dict[str, str]:
    """`/proc/<pid>/status` of the program inside as the host has it, and its user namespace's maps."""
    namespace = await run(sandbox, "import os; answer = os.readlink('/proc/self/ns/pid')")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "ns/pid") == namespace:
                lines = dict(line.split(":\t") for line in (folder / "status").read_text().splitlines())
                if lines["NSpid"].split()[-1] == "2":
                    maps = {name: (folder / name).read_text() for name in ("uid_map", "gid_map", "setgroups")}
                    return lines | {name: " ".join(text.split()) for name, text in maps.items()}
        except OSError:
            pass  # not ours to see, or gone meanwhile
    raise LookupError(f"nobody is in {namespace}")


async def user_of(sandbox: Sandbox) -> int:
    """Whom the host takes the program inside for."""
    return int((await seen_by_the_host(sandbox))["Uid"].split()[0])


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def guardian_pid(backend: Backend) -> int:
    """The process that the node has started, which forks the helper."""
    assert backend._process is not None
    return backend._process.pid


def helper_pid(backend: Backend) -> int:
    """The process that a test may kill."""
    return helper_of(guardian_pid(backend))


def helper_of(guardian: int) -> int:
    """Its one child; waits for it."""
    while not (pids := children_of(guardian)):
        os.sched_yield()
    return pids[0]


def cgroups_of(node_id: str) -> list[str]:
    """The folders of every sandbox's groups, in every tree; not the few that wait, empty, for the next."""
    found: list[str] = []
    for tree in Path("/sys/fs/cgroup").glob(f"*/stoker-{node_id}"):
        groups = [path for path in tree.iterdir() if path.is_dir()]
        empty = [path for path in groups if path.name.startswith("Place-") and not processes_of(path)]
        found += [str(path) for path in groups if path not in empty[:MOST_FREE]]
    return found


def processes_of(group: Path) -> list[str]:
    try:
        return (group / "cgroup.procs").read_text().split()
    except FileNotFoundError:
        return []


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_init(pid: int) -> bool:
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid")
    )
    return line.split()[-1] == "1"
