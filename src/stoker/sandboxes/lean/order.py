"""What the node asks of the helper, and what it waits for until that is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.errors import NodeError, SandboxFailed
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean.packets import MAX_OPENING, Make
from stoker.sandboxes.lean.sandbox import Sandbox
from stoker.sandboxes.lean.spares import Kind
from stoker.types import MEBIBYTE, Limits


class Order:
    """A sandbox that the helper has been asked for."""

    def __init__(self, spec: SandboxSpec, body: bytes) -> None:
        self.spec = spec
        self.body = body
        self.kind: Kind | None = None
        """Of the spares that it could be one of."""
        self.number = 0
        self.tries = 0
        self.is_unwanted = False
        self.sandbox: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Order {self.number} of {self.spec.id}>"

    def made(self, sandbox: Sandbox) -> None:
        self.reopen()
        self.sandbox.set_result(sandbox)

    def fail(self, error: NodeError) -> None:
        self.reopen()
        self.sandbox.set_exception(error)
        self.sandbox.exception()  # heard, even when nobody waits for it any more

    def reopen(self) -> None:
        """Whoever is cancelled cancels what he waits for, but not the order: its end is still to be seen."""
        if self.sandbox.cancelled():
            self.sandbox = asyncio.get_running_loop().create_future()


def is_short(opening: bytes) -> bool:
    """Whether it goes with the order; else it is for the node to say when the sandbox is there."""
    return 0 < len(opening) <= MAX_OPENING


def bounded(launch: int, flags: int, id: str, limits: Limits) -> Make:
    return Make(
        launch,
        flags,
        limits.memory_mb * MEBIBYTE,
        max(1, round(limits.cpus * 1000)),
        limits.pids,
        limits.scratch_mb * MEBIBYTE,
        limits.scratch_inodes,
        id.encode(),
    )


@contextmanager
def folders(spec: SandboxSpec) -> Iterator[tuple[int, ...]]:
    """Descriptors of the folders that a sandbox is given. Raises `SandboxFailed` for one that is none."""
    descriptors: list[int] = []
    try:
        for folder in (spec.code, spec.workspace):
            if folder is not None:
                descriptors.append(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        yield tuple(descriptors)
    except OSError as error:
        raise SandboxFailed(f"cannot show {error.filename}: {error.strerror}") from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
