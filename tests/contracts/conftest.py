"""Every backend and every runtime that has a folder, each skipped with the reason where it cannot work.

What a machine promised in STOKER_PROMISED fails instead of being skipped.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from contracts.guests import PUPPET, Guest, invite
from stoker import plugins
from stoker.runtimes.contract import Runtime
from stoker.sandboxes.contract import Backend, Launch, Problem
from stoker.settings import Settings
from stoker.types import Limits

MISSING = Launch(name="missing-1", argv=("/no/such/program",))
Invite = Callable[..., Awaitable[Guest]]


def require(name: str, problems: list[Problem]) -> None:
    """Skip with the reason what cannot work here; fail where it was promised."""
    if not problems:
        return
    reason = f"{name}: {'; '.join(map(str, problems))}"
    if name in os.environ.get("STOKER_PROMISED", "").split(","):
        pytest.fail(f"this machine promised {reason}")
    pytest.skip(reason)


def load_runtime(name: str) -> Runtime:
    runtime: Runtime = plugins.load("runtimes", name).Runtime()
    require(name, runtime.problems())
    return runtime


@pytest.fixture(params=plugins.names("runtimes"))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return load_runtime(request.param)


@pytest.fixture
def launch(request: pytest.FixtureRequest) -> Launch:
    """What the sandboxes of a test start: the server of its runtime, or of Python where it has none."""
    fixtures = request.fixturenames
    runtime = request.getfixturevalue("runtime") if "runtime" in fixtures else load_runtime("python")
    return runtime.launch(runtime.default())


@pytest.fixture(params=plugins.names("sandboxes"))
def unopened(request: pytest.FixtureRequest, home: Path, launch: Launch) -> Backend:
    room = plugins.load("sandboxes", request.param)
    backend: Backend = room.Backend(room.Settings.of(Settings(home=home)), (launch, MISSING))
    require(request.param, backend.problems())
    backend.prepare()
    return backend


@pytest.fixture
async def backend(unopened: Backend, nothing_left: None) -> AsyncIterator[Backend]:
    """Open; at its end nothing may be left, neither on the machine nor open in this process."""
    before = open_descriptors()
    await unopened.open()
    try:
        yield unopened
    finally:
        await unopened.close()
    assert open_descriptors() <= before


@pytest.fixture
async def guest_of(backend: Backend, launch: Launch) -> AsyncIterator[Invite]:
    """Invites one more guest, with a function loaded unless `handler` is None; all leave at the end."""
    guests: list[Guest] = []
    numbers = itertools.count(1)

    async def guest_of(
        handler: str | None = "main.lambda_handler",
        mode: str = "process",
        concurrency: int = 1,
        code: Path = PUPPET,
        limits: Limits | None = None,
        **environment: str,
    ) -> Guest:
        guest = await invite(backend, f"guest{next(numbers)}", launch, code, limits)
        guests.append(guest)
        if handler is not None:
            guest.load(handler, mode, concurrency, **environment)
        return guest

    yield guest_of
    for guest in guests:
        await guest.leave()


def open_descriptors() -> set[str]:
    """What this process has open, by number and kind."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
