"""A backend of plain processes, and programs for it that need no server."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.sandboxes.contract import Launch
from stoker.sandboxes.process import Backend, Settings

SAY = """\
import os, sys, time
def say(*words): os.write(3, (' '.join(map(str, words)) + '\\n').encode())
"""


def python(text: str, **environment: str) -> Launch:
    """Runs a Python text; its `say` writes on the channel."""
    argv = (sys.executable, "-I", "-S", "-c", SAY + text)
    return Launch(name="text-1", argv=argv, environment=environment)


@pytest.fixture
def root(home: Path) -> Path:
    return home / "scratch"


@pytest.fixture
async def backend(root: Path, nothing_left: None) -> AsyncIterator[Backend]:
    backend = Backend(Settings(root=root), ())
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()
