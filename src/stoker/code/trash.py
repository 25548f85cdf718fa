"""Removes folders without stalling anybody: out of sight at once, gone a little later.

Theory. What strangers' code leaves may be a million files, a chain of folders deeper than the
longest path or than we have descriptors, folders of mode 000, links to anywhere. So nothing is ever
removed by its path: each folder is first moved up to the top of the trash, by descriptor, and emptied
there. That makes every tree one level deep, and no link is followed because none is ever opened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

LOOK_AHEAD = 1000  # entries listed at a time, so that a folder of a million names is not a list of a million

log = logging.getLogger(__name__)


class Trash:
    """One folder on the same file system as what it takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._removals: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<Trash {self._folder}, {len(self._removals)} being removed>"

    def open(self) -> None:
        """Make the folder, and begin to remove what an earlier life left in it."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.iterdir():
            self._remove(path.name)

    def take(self, path: Path) -> None:
        """From now on `path` is not there any more. Nothing happens if it was not there."""
        name = uuid.uuid4().hex
        try:
            os.rename(path, self._folder / name)
        except FileNotFoundError:
            return
        self._remove(name)

    def _remove(self, name: str) -> None:
        removal = asyncio.get_running_loop().run_in_executor(None, remove, self._folder, name)
        self._removals.add(removal)
        removal.add_done_callback(self._removed)

    def _removed(self, removal: asyncio.Future[None]) -> None:
        self._removals.discard(removal)
        error = None if removal.cancelled() else removal.exception()
        if error is not None:
            log.warning("could not remove all of %s; trying again at the next start: %s", self._folder, error)

    async def wait_empty(self) -> None:
        """Until everything taken so far is gone."""
        while self._removals:
            await asyncio.wait(self._removals)


def remove(trash: Path, name: str) -> None:
    """Remove what lies at `name` in the folder `trash`, whatever it is. Blocks; raises `OSError`."""
    top = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fresh = (f"{name}.{number}" for number in itertools.count())
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
