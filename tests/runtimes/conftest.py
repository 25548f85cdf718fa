"""Functions written by a test, run by a real server in a plain process."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from textwrap import dedent

import pytest

from contracts.guests import Guest, invite
from stoker.runtimes.contract import Interpreter, Runtime
from stoker.sandboxes.process import Backend, Settings

Serve = Callable[..., Awaitable[Guest]]


@pytest.fixture
async def processes(home: Path, nothing_left: None) -> AsyncIterator[Backend]:
    backend = Backend(Settings(root=home / "scratch"), ())
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def serve(processes: Backend, folder: Path) -> AsyncIterator[Serve]:
    """Write files into a code folder and load a handler from it, on an interpreter."""
    guests: list[Guest] = []
    numbers = itertools.count(1)

    async def serve(
        runtime: Runtime,
        files: dict[str, str],
        handler: str | None = None,
        mode: str = "process",
        concurrency: int = 1,
        interpreter: Interpreter | None = None,
        **environment: str,
    ) -> Guest:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(dedent(text))
        launch = runtime.launch(interpreter or runtime.default())
        guest = await invite(processes, f"guest{next(numbers)}", launch, folder)
        guests.append(guest)
        guest.load(handler or runtime.default_handler, mode, concurrency, **environment)
        return guest

    yield serve
    for guest in guests:
        await guest.leave()
