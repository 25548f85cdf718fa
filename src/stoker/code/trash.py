"""Removes folders without stalling anybody: out of sight at once, gone a little later.

One thread of its own, for all of them: however much strangers leave, nobody else waits for a thread.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from stoker.linux.removal import remove

log = logging.getLogger(__name__)


class Trash:
    """One folder on the same file system as what it takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._life = uuid.uuid4().hex[:12]
        """Begins every name of ours, so that what an earlier life left is told apart."""
        self._numbers = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, "trash")
        self._removals: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<Trash {self._folder}, {len(self._removals)} being removed>"

    def open(self) -> None:
        """Make the folder, and begin to remove what an earlier life left in it."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._begin(self._remove_earlier)

    def _remove_earlier(self) -> None:
        # One life may have been killed with a million folders moved up: never a list of them all.
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if self._life not in entry.name:
                    with suppress(FileNotFoundError):  # a folder of one that we have just removed whole
                        remove(self._folder, entry.name)

    def take(self, path: Path) -> None:
        """From now on `path` is not there any more. Nothing happens if it was not there."""
        name = f"{self._life}-{next(self._numbers)}"
        try:
            os.rename(path, self._folder / name)
        except FileNotFoundError:
            return
        self._begin(remove, self._folder, name)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        removal = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
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
