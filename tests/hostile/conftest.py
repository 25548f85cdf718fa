"""A node under attack for each kind of sandbox, made once for the whole folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile import arena
from hostile.arena import Arena

SANDBOXES = [
    pytest.param("lean", marks=pytest.mark.skipif(os.geteuid() != 0, reason="lean needs root for now")),
    "process",
]


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: the attacks in C cannot be compiled")
    with tempfile.TemporaryDirectory(prefix="stoker-hostile-") as folder:
        yield arena.compiled(Path(folder))


@pytest.fixture(scope="session", params=SANDBOXES)
def field(request: pytest.FixtureRequest, program: Path) -> Iterator[Arena]:
    with arena.arena(request.param, program) as one:
        yield one
