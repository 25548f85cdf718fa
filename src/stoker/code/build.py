"""One build: unpack, describe, prepare, seal; strangers' bytes behind walls, nothing visible till the end.

A build lives in a folder of its own below `<home>/staging`:

    package    as it was fetched
    work/      the workspace, all that a step inside can write to; `tree/` in it is the unpacked package
    ready/     `code/` and `manifest.json`: moved to its place in one rename when everything is done
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

import msgspec

from stoker.code.drafts import Draft
from stoker.code.manifest import Manifest
from stoker.code.packages import digest_packages
from stoker.code.sealing import Contents, exceeds, seal, too_large
from stoker.code.sources import Package
from stoker.code.storage import storing
from stoker.code.terms import Terms
from stoker.code.tooling import builder_launch
from stoker.code.trash import Trash
from stoker.errors import BadCode, BuildFailed, NodeError, StorageFull
from stoker.sandboxes.contract import CODE_PATH
from stoker.types import MEBIBYTE, Function, Limits, Network, Outcome, Status

__all__ = ["Builder", "Workshop", "builder_launch"]

LOOK_EVERY_S = 0.5
"""How often a build's size is looked at; the fastest disks write a gigabyte meanwhile."""
DECLARATIONS = ("requirements.txt", "package.json")
FAILURES: dict[str, type[NodeError]] = {
    "bad_code": BadCode,
    "build_failed": BuildFailed,
    "storage_full": StorageFull,
}
TAIL_CHARACTERS = 1000
MESSAGE_CHARACTERS = 4000


class Answer(msgspec.Struct, frozen=True):
    """What a step says at its end."""

    ok: bool
    kind: Literal["bad_code", "build_failed", "storage_full"] = "build_failed"
    message: str = ""


class Workshop(Protocol):
    """Runs one step in a sandbox of its own."""

    async def run(
        self, event: dict[str, object], workspace: Path, limits: Limits, network: Network
    ) -> Outcome: ...


class Builder:
    """Turns packages into folders that are ready to be run from."""

    def __init__(self, workshop: Workshop, terms: Terms, staging: Path, trash: Trash) -> None:
        self._workshop = workshop
        self._terms = terms
        self._staging = staging
        self._trash = trash
        self._places = asyncio.Semaphore(terms.builds_at_once)

    def open(self) -> None:
        """Begin with nothing under way."""
        self._trash.take(self._staging)
        self._staging.mkdir(mode=0o700)

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Path]:
        """A folder for one build, gone afterwards."""
        stage = self._staging / uuid.uuid4().hex
        try:
            with storing("beginning a build"):
                (stage / "work").mkdir(parents=True)
                (stage / "ready").mkdir()
            yield stage
        except (StorageFull, OSError):
            self._trash.take(stage)
            await self._trash.wait_empty()  # the next call finds the room that this one took
            raise
        finally:
            self._trash.take(stage)

    async def build(self, stage: Path, draft: Draft, package: Package, digest: str) -> Manifest:
        """Fill `ready/` from `package`. Raises `BadCode`, `BuildFailed`, `StorageFull`, `SandboxFailed`."""
        async with self._places:
            build = _Build(self._workshop, self._terms, draft.key, stage)
            try:
                with storing(f"building {draft.key}"):
                    return await build.run(draft, package, digest)
            except OSError as error:
                raise BuildFailed(f"the build of {draft.key} failed: {error}") from error


class _Build:
    """One build under way."""

    def __init__(self, workshop: Workshop, terms: Terms, key: str, stage: Path) -> None:
        self._workshop = workshop
        self._terms = terms
        self._key = key
        self._stage = stage
        self._work = stage / "work"
        self._deadline = time.monotonic() + terms.build_timeout_s

    async def run(self, draft: Draft, package: Package, digest: str) -> Manifest:
        await self._unpack()
        root = await asyncio.to_thread(draft.find_root, self._work / "tree")
        function = await asyncio.to_thread(draft.read, root)
        await self._prepare(root, function)
        contents = await asyncio.to_thread(self._finish, root)
        packages = await asyncio.to_thread(digest_packages, self._stage / "ready" / "code")
        await asyncio.to_thread(self._check_same, draft, function)
        manifest = Manifest(
            digest=digest,
            key=draft.key,
            package=package.digest,
            interpreter=f"{function.runtime}-{function.version}",
            files=contents.files,
            size_bytes=contents.size_bytes,
            made_at=time.time(),
            packages=packages,
        )
        manifest.write(self._stage / "ready")
        return manifest

    async def _unpack(self) -> None:
        os.rename(self._stage / "package", self._work / "package")
        terms = self._terms
        event: dict[str, object] = {
            "max_members": terms.max_members,
            "max_bytes": terms.max_unpacked_mb * MEBIBYTE,
        }
        await self._step("unpack", event, Network.NONE)

    async def _prepare(self, root: Path, function: Function) -> None:
        """The network is there only for a package that declares what it needs."""
        declares = any((root / name).is_file() for name in DECLARATIONS)
        where = str(root.relative_to(self._work / "tree"))
        event: dict[str, object] = {"root": where, "runtime": function.runtime, "version": function.version}
        event["code_path"] = CODE_PATH
        await self._step("prepare", event, self._terms.build_network if declares else Network.NONE)

    def _finish(self, root: Path) -> Contents:
        code = self._stage / "ready" / "code"
        take(self._work, root.relative_to(self._work).parts, code)
        terms = self._terms
        return seal(code, terms.build_size_bytes, terms.build_members)

    def _check_same(self, draft: Draft, function: Function) -> None:
        """A build makes code ready; what the function may do was said before, by its owner."""
        if draft.read(self._stage / "ready" / "code") != function:
            raise BuildFailed(f"{self._key}: the build changed config.json, which is not its to change")

    async def _step(self, step: str, event: dict[str, object], network: Network) -> None:
        limits = self._terms.build_limits(self._deadline - time.monotonic())
        work = self._workshop.run({**event, "step": step}, self._work, limits, network)
        outcome = await self._watched(asyncio.ensure_future(work))
        if outcome.status is not Status.OK:
            self._fail(step, outcome)
        answer = _read(outcome.result)
        if not answer.ok:
            raise FAILURES[answer.kind](f"{self._key}: {answer.message[:MESSAGE_CHARACTERS]}")

    async def _watched(self, work: asyncio.Future[Outcome]) -> Outcome:
        """The step's outcome; ended when it fills more of the disk than it may."""
        watch: asyncio.Future[Any] = asyncio.ensure_future(self._grown_too_large())
        try:
            await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                watch.result()
                raise too_large(self._terms.build_size_bytes, self._terms.build_members)
            return await work
        finally:
            watch.cancel()
            work.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _grown_too_large(self) -> None:
        most_bytes, most_files = self._terms.build_size_bytes, self._terms.build_members
        # No event tells of it: a quota would, and few file systems here have one.
        while not await asyncio.to_thread(exceeds, self._work, most_bytes, most_files):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)

    def _fail(self, step: str, outcome: Outcome) -> NoReturn:
        terms = self._terms
        if outcome.status is Status.TIMED_OUT:
            message = f"took longer than build_timeout_s, {terms.build_timeout_s:g} s"
        elif outcome.status is Status.OUT_OF_MEMORY:
            message = f"needed more than build_memory_mb, {terms.build_memory_mb} MB"
        else:
            error = outcome.error
            message = f"ended early: {error.type}: {error.message}" if error else "ended early"
        output = (outcome.logs.stdout + outcome.logs.stderr).decode("utf-8", "replace").strip()
        raise BuildFailed(f"{self._key}: the step '{step}' {message}\n{output[-TAIL_CHARACTERS:]}".strip())


def _read(result: bytes) -> Answer:
    """A step's answer; the programs that it runs can reach its memory, so it may be anything."""
    try:
        return msgspec.json.decode(result, type=Answer)
    except msgspec.DecodeError as error:
        return Answer(False, message=f"the step gave no answer of its own: {error}")


def take(top: Path, parts: tuple[str, ...], target: Path) -> None:
    """Move the folder at `parts` below `top` to `target`, by no link. Raises `BuildFailed`, `OSError`.

    A build may have put a link in the place of any folder it could write to.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    holder = os.open(top, flags)
    try:
        for part in parts[:-1]:
            inner = os.open(part, flags, dir_fd=holder)
            os.close(holder)
            holder = inner
        os.close(os.open(parts[-1], flags, dir_fd=holder))
        os.rename(parts[-1], target, src_dir_fd=holder)
    except NotADirectoryError as error:
        raise BuildFailed("the build put something else in the place of its folder") from error
    finally:
        os.close(holder)
