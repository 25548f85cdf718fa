"""What a build has installed, told by its bytes, and a copy of it that shows nothing else.

Two functions have the same packages where every file below the folder of dependencies has the same path, the
same bytes and the same right to be executed. Nothing that a build says of itself is believed: it is read by
us, after it was sealed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

PLACE = Path(".stoker", "deps")
"""In a function's folder; part of what runtimes are told (`docs/wire.md`)."""


def digest_packages(code: Path) -> str:
    """Names the packages in a sealed folder; empty where there are none. Blocks; raises `OSError`."""
    place = code / PLACE
    if (
        not stat.S_ISDIR(os.stat(code).st_mode)
        or not _is_folder(code / PLACE.parts[0])
        or not _is_folder(place)
    ):
        return ""
    digest = hashlib.sha256()
    for path, info in _walk(place):
        is_link, is_file = stat.S_ISLNK(info.st_mode), stat.S_ISREG(info.st_mode)
        name = os.fsencode(os.path.relpath(path, place))
        content = os.fsencode(os.readlink(path)) if is_link else _digest_file(path) if is_file else b""
        kind = b"l" if is_link else b"x" if is_file and info.st_mode & 0o100 else b"f" if is_file else b"d"
        # Lengths before what they are of: no two trees are written alike.
        digest.update(b"%d %b%d %b" % (len(name), name, len(content), content) + kind)
    return digest.hexdigest()


def copy_packages(code: Path, target: Path) -> None:
    """Make `target` a folder that has the packages of that code at their place, and nothing else of it.

    The files are the same ones, linked: nobody can write to them. Blocks; raises `OSError`.
    """
    place = target / PLACE
    place.mkdir(parents=True)
    for path, info in _walk(code / PLACE):
        there = place / os.path.relpath(path, code / PLACE)
        if stat.S_ISDIR(info.st_mode):
            there.mkdir(exist_ok=True)
        else:
            os.link(path, there, follow_symlinks=False)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _digest_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder, in one order, a folder before what is in it; no link is followed."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        yield entry.path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
