"""Makes a function's zygote: has it loaded in a sandbox of its own, and keeps what that became.

A zygote is a file in memory, sealed by who wrote it: nobody can change it any more, and it is gone with the
last descriptor. Whoever starts from it gets it with LOAD, and his walls are those of every sandbox; the node
never looks inside. Before it is used it is tried: a sandbox has to come up from it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stoker.code.packages import copy_packages
from stoker.pool.brood import MAKING_TIMES, WORTH_S
from stoker.runtimes.wire import (
    ERROR,
    HEADER,
    HELLO,
    LOAD_TIME,
    LOADED,
    MAX_ERROR,
    Loading,
    read_error,
    read_loaded,
    write_load,
)
from stoker.types import MEBIBYTE, Network

if TYPE_CHECKING:
    from stoker.pool.pool import Recipe
    from stoker.runtimes.greeting import Load
    from stoker.sandboxes.contract import Sandbox

LEAST_ALLOWED_S = 10.0
"""Loading and handing over may take so long, or as long as a call where that is more."""
SEALS = 0b1111  # no more seals, no shrinking, no growing, no writing
READ_BYTES = 64 * 1024


class Unfit(Exception):
    """This function can have no zygote; why."""


class Spoilt(Exception):
    """It did not come to its end, and another time it may: the machine was busy, or lost it; why."""


class NotWorth(Exception):
    """It was loaded so quickly that a zygote saves nothing: the machine was busy when that took long."""


class Zygote(NamedTuple):
    """What sandboxes start from; whoever holds it closes the file."""

    file: int
    memory_mb: int
    lineage: int
    """Of the sandboxes that can start from it."""


async def make_zygote(recipe: Recipe, trial: Recipe) -> Zygote:
    """Load the function in a sandbox, keep it, and try it in another.

    Without a way out: what an import fetches from elsewhere must not be kept for ever. Raises `Unfit`,
    `Spoilt`, `NotWorth`, `NodeError`, `OSError`.
    """
    limits = recipe.spec.limits
    memory_mb = limits.memory_mb * MAKING_TIMES
    more = msgspec.structs.replace(limits, memory_mb=memory_mb, scratch_mb=max(limits.scratch_mb, memory_mb))
    spec = msgspec.structs.replace(recipe.spec, limits=more, network=Network.NONE, egress=(), opening=b"")
    load = msgspec.structs.replace(recipe.load, freeze=True)
    loading, file, lineage = await _converse(recipe._replace(spec=spec, load=load), None)
    if file < 0:
        raise Unfit("its runtime does not do that")
    try:
        if loading.took_s < WORTH_S:
            raise NotWorth(f"its import took only {loading.took_s * 1000:.1f} ms")
        size_mb = _size_mb(file)
        if size_mb > memory_mb:
            raise Unfit(f"it has {size_mb} MB, more than the {memory_mb} allowed")
        plain = msgspec.structs.replace(trial.spec, opening=b"", lineage=lineage)
        tried, other, _ = await _converse(trial._replace(spec=plain), file)
        close(other)
        if not tried.is_thawed and not tried.is_partly:
            raise Spoilt("the sandbox that tried did not start from it")
    except BaseException:
        os.close(file)
        raise
    return Zygote(file, size_mb, lineage)


async def make_packages_zygote(
    recipe: Recipe, trial: Recipe, imports: frozenset[str], staging: Path
) -> Zygote:
    """The same of what a function has installed, and nothing of its own: not seen, not run, not its words.

    HOLDS: all in that sandbox is the same for every function with these packages.
    """
    assert recipe.spec.code is not None
    alone = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="packages-", dir=staging))
    copying = asyncio.ensure_future(asyncio.to_thread(copy_packages, recipe.spec.code, alone / "code"))
    try:
        await asyncio.shield(copying)
        spec = msgspec.structs.replace(recipe.spec, code=alone / "code")
        load = msgspec.structs.replace(
            recipe.load,
            handler="",
            function="packages",
            environment={},
            mode="process",
            tells=False,
            imports=tuple(sorted(imports)),
        )
        return await make_zygote(recipe._replace(spec=spec, load=load), trial)
    finally:
        await asyncio.wait([copying])  # a thread cannot be ended, and would go on while we remove
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, alone))


def close(file: int) -> None:
    if file >= 0:
        os.close(file)


def _size_mb(file: int) -> int:
    """How much memory it can take. Raises `Unfit` for what is no sealed file of memory.

    Also what it does not hold yet: pages between others are made when they are looked at.
    """
    try:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    status = os.fstat(file)
    if seals != SEALS or not stat.S_ISREG(status.st_mode):
        raise Unfit("what it handed over is no sealed memory")
    return -(-max(status.st_size, status.st_blocks * 512) // MEBIBYTE)


async def _converse(recipe: Recipe, file: int | None) -> tuple[Loading, int, int]:
    """Have the function loaded in a sandbox that is gone afterwards.

    How; what it handed over, or -1; and of which lineage the sandbox was.
    """
    allowed_s = max(LEAST_ALLOWED_S, recipe.spec.limits.timeout_s)
    sandbox = await recipe.backend.create(recipe.spec)
    try:
        load = msgspec.structs.replace(recipe.load, code=sandbox.code_path)
        with _Line(sandbox) as line:
            async with asyncio.timeout(allowed_s):
                return *(await line.converse(load, file)), sandbox.lineage
    except TimeoutError:
        raise Spoilt(f"it was not there after {allowed_s:g} s") from None
    finally:
        await asyncio.shield(sandbox.destroy())


class _Line:
    """The stream of one sandbox, read with what comes beside the bytes; what it prints is dropped."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = sandbox.channel
        self._outputs = (sandbox.stdout, sandbox.stderr)
        self._buffer = b""
        self._file = -1
        self._ready = asyncio.Event()

    def __enter__(self) -> _Line:
        self._loop.add_reader(self._channel.fileno(), self._ready.set)
        for output in self._outputs:
            self._loop.add_reader(output, self._drop, output)
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in (self._channel.fileno(), *self._outputs):
            self._loop.remove_reader(descriptor)
        close(self._file)

    def _drop(self, output: int) -> None:
        try:
            is_over = not os.read(output, READ_BYTES)
        except BlockingIOError:
            return
        if is_over:
            self._loop.remove_reader(output)

    async def converse(self, load: Load, file: int | None) -> tuple[Loading, int]:
        socket.send_fds(self._channel, [write_load(load)], [] if file is None else [file])
        if (await self._frame())[0] != HELLO:
            raise Unfit("it does not greet")
        kind, payload = await self._frame()
        if kind == ERROR:
            error = read_error(payload)
            raise Unfit(f"{error.type}: {error.message}")
        if kind != LOADED:
            raise Unfit(f"a frame of kind {kind:#x} instead of LOADED")
        if len(payload) < LOAD_TIME.size:
            raise Unfit("a LOADED without a time")
        file, self._file = self._file, -1
        return read_loaded(payload), file

    async def _frame(self) -> tuple[int, bytes]:
        while True:
            if len(self._buffer) >= HEADER.size:
                length, kind, _ = HEADER.unpack_from(self._buffer)
                end = HEADER.size + length
                if length > MAX_ERROR:
                    raise Unfit(f"a frame of {length} bytes")
                if len(self._buffer) >= end:
                    payload, self._buffer = self._buffer[HEADER.size : end], self._buffer[end:]
                    return kind, payload
            await self._read()

    async def _read(self) -> None:
        await self._ready.wait()
        self._ready.clear()
        try:
            data, files, _, _ = socket.recv_fds(self._channel, READ_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionError:
            data, files = b"", []
        for file in files:
            close(self._file)
            self._file = file
        if not data:
            raise Spoilt("it ended while it loaded")
        self._buffer += data
