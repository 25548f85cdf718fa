"""From a folder's name to the room in it: the folder's name is the registry.

The only importer of plug-in rooms. A new backend, runtime or door is one new folder.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from stoker.errors import BackendUnavailable

HERE = Path(__file__).parent


def names(wing: str) -> list[str]:
    """The folders of a wing (`sandboxes`, `runtimes`, `doors`), in alphabetical order."""
    return sorted(folder.parent.name for folder in (HERE / wing).glob("*/__init__.py"))


def load(wing: str, name: str) -> ModuleType:
    """Import one room. Raises `BackendUnavailable` when there is no such folder."""
    known = names(wing)
    if name not in known:
        raise BackendUnavailable(f"no {name!r} in {wing}; there is {', '.join(known)}")
    return importlib.import_module(f"stoker.{wing}.{name}")
