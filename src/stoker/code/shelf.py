"""The folders of finished builds: named by digest, counted, pinned, the least recently used thrown out first.

HOLDS (invariant 3): a folder with a pin stays where it is, whatever was decided about it meanwhile.
A folder is here with its manifest or not at all: both came by one rename.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from stoker.code.manifest import CODE, Manifest
from stoker.code.sealing import Contents, measure
from stoker.code.trash import Trash

UNLIMITED = -1

log = logging.getLogger(__name__)


class Folder:
    """One build on the shelf."""

    __slots__ = ("manifest", "path", "pins", "retired", "seen", "used")

    def __init__(self, path: Path, manifest: Manifest, seen: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.pins = 0
        self.used = 0
        self.retired = False
        """Goes as soon as it has no pin."""
        self.seen = seen
        """This life of the node made it, or has looked through it."""

    def __repr__(self) -> str:
        state = "retired" if self.retired else "current"
        return f"<Folder {self.path.name} of {self.manifest.key}, {state}, {self.pins} pins>"

    @property
    def code(self) -> Path:
        return self.path / CODE


class Shelf:
    """All finished builds of a node."""

    def __init__(self, place: Path, trash: Trash, evicted: Callable[[Folder], None]) -> None:
        self._place = place
        self._trash = trash
        self._evicted = evicted
        self._folders: dict[str, Folder] = {}
        self._clock = itertools.count(1)
        self._limit_bytes = UNLIMITED
        self.size_bytes = 0

    def __repr__(self) -> str:
        return f"<Shelf of {len(self._folders)} folders, {self.size_bytes} bytes>"

    def __iter__(self) -> Iterator[Folder]:
        return iter(self._folders.values())

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    def open(self) -> None:
        """Adopt the whole folders of an earlier life, throw out everything else."""
        self._place.mkdir(mode=0o755, exist_ok=True)
        found = ((path, Manifest.read(path)) for path in self._place.iterdir())
        whole = sorted(
            ((path, manifest) for path, manifest in found if self._is_whole_build(path, manifest)),
            key=lambda pair: pair[1].made_at if pair[1] else 0,
        )
        for path, manifest in whole:
            assert manifest is not None
            self._add(Folder(path, manifest, seen=False))

    def _is_whole_build(self, path: Path, manifest: Manifest | None) -> bool:
        if manifest is None:
            log.info("%s is no whole build; removing it", path)
            self._trash.take(path)
        return manifest is not None

    def _add(self, folder: Folder) -> None:
        self._folders[folder.path.name] = folder
        self.size_bytes += folder.manifest.size_bytes
        self.touch(folder)

    def touch(self, folder: Folder) -> None:
        folder.used = next(self._clock)

    def find(self, digest: str) -> Folder | None:
        """The newest build of that digest which is still wanted."""
        return self._newest(lambda folder: folder.manifest.digest == digest)

    def latest(self, key: str) -> Folder | None:
        """The newest build of that function which is still wanted."""
        return self._newest(lambda folder: folder.manifest.key == key)

    def _newest(self, fits: Callable[[Folder], bool]) -> Folder | None:
        fitting = (folder for folder in self._folders.values() if not folder.retired and fits(folder))
        return max(fitting, key=lambda folder: folder.manifest.made_at, default=None)

    def place(self, ready: Path, manifest: Manifest) -> Folder:
        """Move a finished build to its place; it comes with one pin, the caller's. Raises `OSError`."""
        names = (manifest.digest, *(f"{manifest.digest}.{number}" for number in range(2, 1000)))
        name = next(name for name in names if name not in self._folders)
        os.rename(ready, self._place / name)
        folder = Folder(self._place / name, manifest, seen=True)
        folder.pins = 1
        self._add(folder)
        self.trim()
        return folder

    def unpin(self, folder: Folder) -> None:
        """Give one pin back; the last one decides."""
        folder.pins -= 1
        if folder.pins == 0:
            if folder.retired:
                self._remove(folder)
            elif self._limit_bytes != UNLIMITED:
                self.trim()

    def retire(self, folder: Folder) -> None:
        """Nobody wants it any more; it goes when the last pin is back."""
        folder.retired = True
        if folder.pins == 0:
            self._remove(folder)

    def _remove(self, folder: Folder) -> None:
        if self._folders.pop(folder.path.name, None) is not None:
            self.size_bytes -= folder.manifest.size_bytes
            self._trash.take(folder.path)

    def set_limit(self, limit_bytes: int) -> None:
        """At most so many bytes from now on; -1: no limit."""
        self._limit_bytes = limit_bytes
        self.trim()

    def trim(self) -> None:
        """Throw out the least recently used that nobody holds, until the rest fits."""
        if self._limit_bytes == UNLIMITED or self.size_bytes <= self._limit_bytes:
            return
        idle = sorted((folder for folder in self if not folder.pins), key=lambda folder: folder.used)
        for folder in idle:
            if self.size_bytes <= self._limit_bytes:
                return
            self._evicted(folder)
            self.retire(folder)

    def is_whole(self, folder: Folder) -> bool:
        """Whether a folder of an earlier life lost nothing since, say to a power cut. Blocks."""
        if not folder.seen:
            manifest = folder.manifest
            try:
                folder.seen = measure(folder.code) == Contents(manifest.files, manifest.size_bytes)
            except OSError:
                folder.seen = False
        return folder.seen
