"""What a catalog knows of a function before it is built: where its package is and how to read it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.code.sources import Package
from stoker.errors import BadCode
from stoker.types import Function

MAX_NAMES = 8
NOISE = frozenset({"__MACOSX", ".DS_Store"})


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A function to be made ready."""

    key: str
    fetch: Callable[[Path], Awaitable[Package]]
    """Bring the package into the given new file."""
    find_root: Callable[[Path], Path]
    """Where the function's own folder is in the unpacked package. Raises `BadCode`."""
    read: Callable[[Path], Function]
    """The function whose code lies in the given folder. Blocks; raises `NodeError`."""
    package: str | None = None
    """The package's digest, where it is known before it is fetched."""


class Catalog(Protocol):
    """A set of functions under one name."""

    async def draft(self, name: str) -> Draft:
        """Raises `NoSuchFunction`, `BadRequest`, `CodeUnavailable`."""
        ...

    async def names(self) -> list[str]:
        """Those it knows of. Raises `CodeUnavailable`, `BadRequest`."""
        ...


def names_in(folder: Path) -> str:
    """The first few names in a folder, for people to read."""
    names = sorted(os.listdir(folder))
    shown = [name if name.isprintable() else ascii(name) for name in names[:MAX_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")


def root_named(name: str) -> Callable[[Path], Path]:
    """For packages with one top folder named after the function, or with none at all."""

    def find(tree: Path) -> Path:
        if (tree / name).is_dir() and not (tree / name).is_symlink():
            return tree / name
        if (tree / "config.json").is_file():
            return tree
        raise BadCode(f"the package of {name!r} has no folder {name!r} at its top; it holds {names_in(tree)}")

    return find


def root_anywhere(tree: Path) -> Path:
    """For packages of any shape: their single top folder, else their top."""
    entries = [entry for entry in os.scandir(tree) if entry.name not in NOISE]
    if len(entries) == 1 and entries[0].is_dir(follow_symlinks=False):
        return Path(entries[0].path)
    return tree
