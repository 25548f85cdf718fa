"""From a draft to a version: what is here already is used, what is not is fetched and built."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path

import msgspec

from stoker.code.build import Builder
from stoker.code.describing import revised
from stoker.code.drafts import Draft
from stoker.code.shelf import Folder, Shelf
from stoker.code.sources import Package
from stoker.code.storage import storing
from stoker.code.turns import Turns
from stoker.code.versions import Pin, Version
from stoker.errors import CodeUnavailable

FETCHES_AT_ONCE = 8
"""Packages being fetched at a time; each may take `max_package_mb` of the disk."""

log = logging.getLogger(__name__)


class Maker:
    """Makes versions; never two of one digest at a time."""

    def __init__(self, builder: Builder, shelf: Shelf) -> None:
        self._builder = builder
        self._shelf = shelf
        self._fetches = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<Maker for {self._shelf!r}, {self._turns!r}>"

    async def make(self, draft: Draft) -> Pin:
        """What the draft says, ready but not yet current. Raises `NodeError`."""
        try:
            with storing(f"making {draft.key} ready"):
                found = (
                    await self._find(digest_of(draft.key, draft.package), draft) if draft.package else None
                )
                if found is not None:
                    return found
                async with self._builder.stage() as stage:
                    return await self._make(stage, draft)
        except OSError as error:
            raise CodeUnavailable(f"{draft.key} cannot be made ready: {error}") from error

    async def _make(self, stage: Path, draft: Draft) -> Pin:
        try:
            async with self._fetches:
                package = await draft.fetch(stage / "package")
        except CodeUnavailable as error:
            return await self._last_known(draft, error)
        digest = digest_of(draft.key, package.digest)
        async with self._turns.of(digest):
            found = await self._find(digest, draft)
            return found or await self._build(stage, draft, package, digest)

    async def _build(self, stage: Path, draft: Draft, package: Package, digest: str) -> Pin:
        manifest = await self._builder.build(stage, draft, package, digest)
        folder = self._shelf.place(stage / "ready", manifest)
        try:
            return await self._read(folder, draft, built=True)
        finally:
            self._shelf.unpin(folder)

    async def _find(self, digest: str, draft: Draft) -> Pin | None:
        """A build of before, when it is whole and for the interpreter in force."""
        folder = self._shelf.find(digest)
        return None if folder is None else await self._reuse(folder, draft)

    async def _reuse(self, folder: Folder, draft: Draft) -> Pin | None:
        folder.pins += 1
        try:
            if not await asyncio.to_thread(self._shelf.is_whole, folder):
                self._shelf.retire(folder)
                return None
            pin = await self._read(folder, draft, built=False)
            function = pin.version.function
            if folder.manifest.interpreter == f"{function.runtime}-{function.version}":
                return pin
            pin.release()
            return None
        finally:
            self._shelf.unpin(folder)

    async def _read(self, folder: Folder, draft: Draft, built: bool) -> Pin:
        function = revised(await asyncio.to_thread(draft.read, folder.code), folder.path.name)
        function = msgspec.structs.replace(function, packages=folder.manifest.packages)
        version = Version(function, folder.code, folder.manifest.digest, folder.manifest.size_bytes)
        return Pin(self._shelf, folder, version, built)

    async def _last_known(self, draft: Draft, error: CodeUnavailable) -> Pin:
        """While its source is away, a function of before the restart goes on being served."""
        folder = self._shelf.latest(draft.key)
        pin = None if folder is None else await self._reuse(folder, draft)
        if pin is None:
            raise error
        log.warning("%s; serving %s as it was before", error, draft.key)
        return pin


def digest_of(key: str, package: str) -> str:
    """Names what is built: one function's key and the package it comes from."""
    return hashlib.sha256(f"{key}\0{package}".encode()).hexdigest()
