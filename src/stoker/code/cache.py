"""The functions that are ready to run, and the way there for those that are not yet.

A key is ready or it is not. `pin` answers at once for one that is. `fetch` makes it ready: everybody
who asks for the same key meanwhile waits for the same flight, and its end, good or bad, is the end
for all of them; whoever comes after a bad one starts anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.code.build import Builder, Workshop
from stoker.code.deployed import DeployedCatalog, Records
from stoker.code.describing import Choose
from stoker.code.drafts import Catalog, Draft
from stoker.code.front import FrontCatalog
from stoker.code.making import Maker
from stoker.code.shelf import Folder, Shelf
from stoker.code.snapshot import Entry, Snapshot
from stoker.code.sources import open_source
from stoker.code.terms import Terms
from stoker.code.trash import Trash
from stoker.code.versions import Pin, Version
from stoker.errors import CodeUnavailable, Draining, NodeError, NoSuchFunction
from stoker.types import Function

__all__ = ["Cache", "Entry", "Pin", "Snapshot", "Version"]

log = logging.getLogger(__name__)


class Ready:
    """A key whose version can be pinned at once."""

    __slots__ = ("folder", "version")

    def __init__(self, version: Version, folder: Folder) -> None:
        self.version = version
        self.folder = folder


class CacheSettings(Protocol):
    """The part of the settings that is needed here, beside the terms."""

    @property
    def home(self) -> Path: ...
    @property
    def code_size_limit_bytes(self) -> int: ...
    @property
    def function_url_prefix(self) -> str | None: ...


class Cache:
    """The room `code`."""

    def __init__(self, settings: CacheSettings, workshop: Workshop, choose: Choose, records: Records) -> None:
        self.terms = msgspec.convert(settings, Terms, from_attributes=True)
        self._trash = Trash(settings.home / "trash")
        self._shelf = Shelf(settings.home / "code", self._trash, self._lost)
        self._shelf.set_limit(settings.code_size_limit_bytes)
        self._builder = Builder(workshop, self.terms, settings.home / "staging", self._trash)
        prefix = settings.function_url_prefix
        source = open_source(prefix, self.terms.max_package_bytes) if prefix else None
        self.deployed = DeployedCatalog(records, settings.home / "blobs", self.terms, choose)
        self._catalogs: dict[str, Catalog] = {
            "front": FrontCatalog(source, self.terms, choose),
            "functions": self.deployed,
        }
        self._ready: dict[str, Ready] = {}
        self._other_names: dict[str, str] = {}
        self._flights: dict[str, list[asyncio.Future[Pin]]] = {}
        self._tasks: set[asyncio.Task[Pin]] = set()
        self._maker = Maker(self._builder, self._shelf)
        self.on_retired: Callable[[str], object] = lambda revision: None
        """Told of each revision that is no longer current."""
        self.on_ready: Callable[[Function], object] = lambda function: None
        """Told of each function whose code is ready to be run."""

    def __repr__(self) -> str:
        return f"<Cache {len(self._ready)} ready, {len(self._flights)} on the way, {self._shelf!r}>"

    async def open(self) -> None:
        """Take over what an earlier life finished, and nothing else of it."""
        self._trash.open()
        self._builder.open()
        self._shelf.open()
        await self.deployed.open()
        self._shelf.trim()

    async def close(self) -> None:
        """End what is on the way; whoever waits for it gets `Draining`. Idempotent."""
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._trash.wait_empty()

    # Calls

    def pin(self, key: str) -> Pin | None:
        """The current version, held until released; None when it is not ready."""
        ready = self._ready.get(key)
        if ready is None:
            return None
        self._shelf.touch(ready.folder)
        return Pin(self._shelf, ready.folder, ready.version, built=False)

    async def fetch(self, key: str) -> Pin:
        """The current version, made ready first when it is not. Raises `NodeError`."""
        key = self._other_names.get(key, key)
        pin = self.pin(key)
        if pin is not None:
            return pin
        waiter: asyncio.Future[Pin] = asyncio.get_running_loop().create_future()
        self._flight(key).append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()
            raise

    async def names(self, catalog: str) -> list[str]:
        """The functions that a catalog knows of. Raises `NodeError`."""
        return await self._catalogs[catalog].names()

    # Flights

    def _flight(self, key: str) -> list[asyncio.Future[Pin]]:
        """Those who wait for `key`, on a flight that is under way."""
        waiters = self._flights.get(key)
        if waiters is None:
            waiters = self._flights[key] = []
            task = asyncio.create_task(self._fly(key), name=f"fetch {key}")
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._landed(key, waiters, task))
        return waiters

    async def _fly(self, key: str) -> Pin:
        catalog, _, name = key.partition("/")
        if catalog not in self._catalogs:
            raise NoSuchFunction(f"there is no function {key!r}")
        draft = await self._catalogs[catalog].draft(name)
        if draft.key != key:
            self._other_names[key] = draft.key
        return await self.make(draft)

    def _landed(self, key: str, waiters: list[asyncio.Future[Pin]], task: asyncio.Task[Pin]) -> None:
        self._tasks.discard(task)
        is_wanted = self._flights.get(key) is waiters
        if is_wanted:
            del self._flights[key]
        if task.cancelled() or task.exception() is not None:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(_reason(key, task))
            return
        pin = task.result()
        if is_wanted:
            self.publish(pin)
        else:
            self.drop(pin)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(pin.another())
        pin.release()

    def drop(self, pin: Pin) -> None:
        """What will not be published serves those who hold it and nobody else."""
        if not any(ready.folder is pin.folder for ready in self._ready.values()):
            self._shelf.retire(pin.folder)

    async def make(self, draft: Draft) -> Pin:
        """What a draft says, ready but not yet current. Raises `NodeError`."""
        return await self._maker.make(draft)

    # What is current

    def publish(self, pin: Pin) -> None:
        """From now on the pinned version is the one that its key names."""
        key = pin.version.function.key
        before = self._ready.get(key)
        self._ready[key] = Ready(pin.version, pin.folder)
        self.on_ready(pin.version.function)
        pin.folder.retired = False
        if before is not None and before.version.function.revision != pin.version.function.revision:
            self._replaced(before, pin.folder)
        self._flights.pop(key, None)
        self._drop_others(key, pin.folder)

    def _replaced(self, before: Ready, folder: Folder) -> None:
        self.on_retired(before.version.function.revision)
        if before.folder is not folder:
            self._shelf.retire(before.folder)

    def _drop_others(self, key: str, folder: Folder) -> None:
        for other in [other for other in self._shelf if other.manifest.key == key]:
            if other is not folder and not other.retired:
                self._shelf.retire(other)

    def forget(self, key: str) -> None:
        """Drop what is prepared of a function; the next call fetches and builds it anew."""
        self._flights.pop(key, None)
        self._other_names = {other: name for other, name in self._other_names.items() if name != key}
        ready = self._ready.pop(key, None)
        if ready is not None:
            self.on_retired(ready.version.function.revision)
        for folder in [folder for folder in self._shelf if folder.manifest.key == key]:
            self._shelf.retire(folder)

    def forget_catalog(self, name: str) -> None:
        """`forget` for every function of a catalog."""
        keys = {*self._ready, *self._flights, *(folder.manifest.key for folder in self._shelf)}
        for key in keys:
            if key.startswith(name + "/"):
                self.forget(key)

    def _lost(self, folder: Folder) -> None:
        """The shelf has thrown a folder out."""
        ready = self._ready.get(folder.manifest.key)
        if ready is not None and ready.folder is folder:
            del self._ready[folder.manifest.key]
            self.on_retired(ready.version.function.revision)

    def set_limit(self, limit_bytes: int) -> None:
        """At most so many bytes of code from now on; -1: no limit."""
        self._shelf.set_limit(limit_bytes)

    def snapshot(self) -> Snapshot:
        """The cache as it is now."""
        current = {ready.folder for ready in self._ready.values()}
        entries = tuple(
            Entry(
                folder.manifest.key,
                folder.manifest.digest,
                folder.manifest.size_bytes,
                folder.pins,
                folder in current,
            )
            for folder in self._shelf
        )
        return Snapshot(self._shelf.size_bytes, self._shelf.limit_bytes, tuple(self._flights), entries)


def _reason(key: str, task: asyncio.Task[Pin]) -> NodeError:
    """Why a flight brought nothing."""
    if task.cancelled():
        return Draining()
    error = task.exception()
    if isinstance(error, NodeError):
        return error
    log.error("making %s ready failed", key, exc_info=error)
    return CodeUnavailable(f"{key} cannot be made ready: {type(error).__name__}: {error}")
