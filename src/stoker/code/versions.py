"""A function that is ready to run, and the hold that keeps it so."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from stoker.code.shelf import Folder, Shelf
from stoker.types import Function


class Version(NamedTuple):
    """One function, ready to run."""

    function: Function
    folder: Path
    digest: str
    size_bytes: int


class Pin:
    """Holds one version's folder in its place until it is released."""

    __slots__ = ("_shelf", "built", "folder", "held", "version")

    def __init__(self, shelf: Shelf, folder: Folder, version: Version, built: bool) -> None:
        folder.pins += 1
        self._shelf = shelf
        self.folder = folder
        self.held = True
        self.version = version
        self.built = built
        """Whoever got it had to wait for a build."""

    def __repr__(self) -> str:
        return f"<Pin on {self.folder!r}>" if self.held else "<Pin, released>"

    def another(self) -> Pin:
        """A second hold on the same version."""
        return Pin(self._shelf, self.folder, self.version, self.built)

    def release(self) -> None:
        """Idempotent."""
        if self.held:
            self.held = False
            self._shelf.unpin(self.folder)
