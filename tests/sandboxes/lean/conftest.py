"""A backend of lean sandboxes, open, on the real kernel; skipped with the reason where there is none."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sandboxes.lean.guests import FORKED, LAUNCHES, hello
from stoker.sandboxes.contract import Launch, Sandbox, SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.types import Limits, Network

Make = Callable[..., Awaitable[Sandbox]]


@pytest.fixture
def spares() -> int:
    """How many there are; a module may say otherwise."""
    return 2


@pytest.fixture
def unopened(node_id: str, spares: int) -> Backend:
    backend = Backend(Settings(node_id=node_id, spares=spares), LAUNCHES)
    if problems := backend.problems():
        reason = "; ".join(map(str, problems))
        if "lean" in os.environ.get("STOKER_PROMISED", "").split(","):
            pytest.fail(f"this machine promised lean sandboxes: {reason}")
        pytest.skip(reason)
    return backend


@pytest.fixture
async def lean(unopened: Backend, nothing_left: None) -> AsyncIterator[Backend]:
    await unopened.open()
    try:
        yield unopened
    finally:
        await unopened.close()


@pytest.fixture
async def make(lean: Backend) -> AsyncIterator[Make]:
    """Make one more sandbox and hear its greeting; the test's end is its end."""
    numbers = itertools.count(1)
    made: list[Sandbox] = []

    async def make(
        launch: Launch = FORKED,
        code: Path | None = None,
        workspace: Path | None = None,
        network: Network = Network.NONE,
        greets: bool = True,
        opening: bytes = b"",
        **limits: float,
    ) -> Sandbox:
        spec = SandboxSpec(
            id=f"guest{next(numbers)}",
            launch=launch,
            limits=Limits(**limits),  # type: ignore[arg-type]
            code=code,
            workspace=workspace,
            network=network,
            opening=opening,
        )
        sandbox = await lean.create(spec)
        made.append(sandbox)
        if greets:
            await hello(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        await sandbox.destroy()
