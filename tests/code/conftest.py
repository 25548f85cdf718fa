"""What the tests of this room may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from code_room import NODE, PYTHON, VERSION, Bench, Files, Room, hello, zip_of
from stoker.code.tooling import builder_launch
from stoker.sandboxes.contract import Launch
from stoker.settings import Settings


@pytest.fixture
def packages(folder: Path) -> Path:
    return folder


@pytest.fixture
def put(packages: Path) -> Callable[..., Path]:
    """Puts `<name>.zip` of these files where the prefix points."""

    def put_package(name: str, files: Files | None = None) -> Path:
        path = packages / f"{name}.zip"
        path.write_bytes(zip_of(files if files is not None else hello(name)))
        return path

    return put_package


@pytest.fixture
def launch(home: Path) -> Launch:
    """What a build starts with: this machine's own settings for pip and npm."""
    base = Launch(name=f"python-{VERSION}", argv=(str(PYTHON),))
    node = Launch(name="nodejs-20.20.2", argv=(str(NODE),))
    return builder_launch(base, Settings(home=home), (base, node))


@pytest.fixture
def bench(launch: Launch) -> Bench:
    """The workshop by itself."""
    return Bench(launch)


OpenRoom = Callable[..., Awaitable[Room]]


@pytest.fixture
async def open_room(home: Path, packages: Path, launch: Launch) -> AsyncIterator[OpenRoom]:
    """Opens rooms over the same home, one after another; closes the last."""
    rooms: list[Room] = []

    async def open_with(**settings: object) -> Room:
        if rooms:
            await rooms[-1].close()
        prefix = {"function_url_prefix": f"{packages}/"} | settings
        rooms.append(Room(Settings(home=home, **prefix), launch))  # type: ignore[arg-type]
        return await rooms[-1].open()

    yield open_with
    for room in rooms:
        await room.close()
