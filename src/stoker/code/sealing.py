"""Looks at what a build left, with our own eyes and by no link: counted, capped, made read-only.

A build runs strangers' programs; what its step says of its result is not believed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import msgspec

from stoker.errors import BuildFailed
from stoker.types import MEBIBYTE

FILE, PROGRAM, FOLDER = 0o444, 0o555, 0o555


class Contents(msgspec.Struct, frozen=True):
    """What lies below a folder."""

    files: int
    size_bytes: int


def seal(folder: str | os.PathLike[str], max_bytes: int, max_files: int) -> Contents:
    """Make everything below read-only and readable for all; refuse what is no file, folder or link.

    Blocks. Raises `BuildFailed`, `OSError`.
    """
    files = size_bytes = 0
    for path, info in _walk(folder, opening=True):
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            os.chmod(path, PROGRAM if info.st_mode & 0o100 else FILE)
            size_bytes += info.st_size
        elif kind == stat.S_IFDIR:
            os.chmod(path, FOLDER)
        elif kind != stat.S_IFLNK:
            raise BuildFailed(f"the build left {os.path.relpath(path, folder)!r}, no file, folder or link")
        files += 1
        if size_bytes > max_bytes or files > max_files:
            raise too_large(max_bytes, max_files)
    return Contents(files, size_bytes)


def measure(folder: str | os.PathLike[str]) -> Contents:
    """The same count as `seal` gave, if nothing was changed since. Blocks; raises `OSError`."""
    files = size_bytes = 0
    for _, info in _walk(folder):
        files += 1
        size_bytes += info.st_size if stat.S_ISREG(info.st_mode) else 0
    return Contents(files, size_bytes)


def exceeds(folder: str | os.PathLike[str], max_bytes: int, max_files: int) -> bool:
    """Whether more disk than allowed is used below a folder that is still being written to. Blocks."""
    used_bytes = 0
    for files, (_, info) in enumerate(_walk(folder, moving=True), start=1):
        used_bytes += info.st_blocks * 512
        if used_bytes > max_bytes or files > max_files:
            return True
    return False


def too_large(max_bytes: int, max_files: int) -> BuildFailed:
    return BuildFailed(
        f"the build grew beyond what this node allows: build_size_mb is {max_bytes // MEBIBYTE}, "
        f"and at most {max_files} files (10 x max_members)"
    )


def _walk(
    folder: str | os.PathLike[str], opening: bool = False, moving: bool = False
) -> Iterator[tuple[str, os.stat_result]]:
    """Everything from a folder downwards, itself first, as `lstat` sees it.

    `opening`: folders are made readable on the way. `moving`: what vanishes meanwhile is passed over,
    but a folder of ours that somebody closed to us is not, for it could hide anything.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        try:
            if opening:
                os.chmod(place, 0o700)
            info = os.lstat(place)
            yield place, info
            if not stat.S_ISDIR(info.st_mode):
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry.path, entry.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            if not moving:
                raise
