"""Removes whatever strangers' code left in a folder, by no path and through no link.

Theory. There may be a million files, a chain of folders deeper than the longest path, than we have
descriptors or than we may recurse, folders of mode 000, links to anywhere. So nothing is ever removed
by its path: each folder is first moved up to the top, by descriptor, and emptied there. That makes
every tree one level deep, and no link is followed because none is ever opened.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

LOOK_AHEAD = 1000  # entries listed at a time, so that a folder of a million names is not a list of a million


def is_part(entry: str, name: str) -> bool:
    """Whether `entry` is, or was moved up from, what lay at `name` when somebody began to remove it."""
    return entry == name or entry.startswith(f".{name}.")


def remove(place: str | os.PathLike[str], name: str) -> None:
    """Remove what lies at `name` in the folder `place`, whatever it is. Blocks; raises `OSError`.

    Meanwhile folders of it lie in `place` too, under names of ours (see `is_part`).
    """
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fresh = (f".{name}.{number}" for number in itertools.count())
    try:
        waiting = [name] if _open_up(top, name) else []
        while waiting:
            folder = waiting.pop()
            waiting += _empty(top, folder, fresh)
            os.rmdir(folder, dir_fd=top)
    finally:
        os.close(top)


def _open_up(parent: int, name: str) -> bool:
    """Let us list, empty and move a folder; a file is removed instead (False)."""
    try:
        folder = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return False
    try:
        # Not by name: a chmod by name follows links.
        os.chmod(f"/proc/self/fd/{folder}", 0o700)
    finally:
        os.close(folder)
    return True


def _empty(top: int, folder: str, fresh: Iterator[str]) -> list[str]:
    """Remove the files of one folder and move its folders to the top; their new names."""
    moved: list[str] = []
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        while entries := _some(here):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _open_up(here, entry.name)
                    moved.append(next(fresh))
                    os.rename(entry.name, moved[-1], src_dir_fd=here, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=here)
    finally:
        os.close(here)
    return moved


def _some(folder: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(itertools.islice(entries, LOOK_AHEAD))
