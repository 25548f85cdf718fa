"""Packages in a folder of this machine: `<prefix>W1.zip`, `<prefix>W1.tar.gz` or the folder `<prefix>W1/`."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from stoker.code.archive import pack_folder
from stoker.code.sources.contract import LIST, MAX_LIST_BYTES, SUFFIXES, Intake, Package, Source, check_name
from stoker.errors import CodeUnavailable, NoSuchFunction


class FolderSource(Source):
    """A prefix of paths on this machine."""

    def __init__(self, prefix: str, max_bytes: int) -> None:
        self._prefix = prefix
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<FolderSource {self._prefix}>"

    async def fetch(self, name: str, into: Path) -> Package:
        check_name(name)
        return await asyncio.to_thread(self._fetch, name, into)

    def _fetch(self, name: str, into: Path) -> Package:
        for suffix in SUFFIXES:
            path = Path(f"{self._prefix}{name}{suffix}")
            if self._is_file(path):
                return copy_file(path, into, self._max_bytes)
        folder = Path(f"{self._prefix}{name}")
        if folder.is_dir():
            return self._pack(folder, name, into)
        self._check_reachable()
        raise NoSuchFunction(f"no function {name!r}: there is no {self._prefix}{name}.zip")

    def _is_file(self, path: Path) -> bool:
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise CodeUnavailable(f"{path} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise CodeUnavailable(f"{path} is not a file")
        return stat.S_ISREG(mode)

    def _pack(self, folder: Path, name: str, into: Path) -> Package:
        packed = into.with_name(into.name + ".tar")
        try:
            pack_folder(folder, name, packed, self._max_bytes)
            return copy_file(packed, into, self._max_bytes * 2, address=f"{folder}/")
        finally:
            packed.unlink(missing_ok=True)

    def _check_reachable(self) -> None:
        place = os.path.dirname(self._prefix) or "."
        if not os.path.isdir(place):
            raise CodeUnavailable(f"the folder of packages {place} does not exist")

    async def list_text(self) -> bytes:
        return await asyncio.to_thread(self._read_list)

    def _read_list(self) -> bytes:
        path = Path(f"{self._prefix}{LIST}")
        if not self._is_file(path):
            raise CodeUnavailable(f"there is no {path}")
        with open(path, "rb") as file:
            return file.read(MAX_LIST_BYTES)


def copy_file(source: Path, into: Path, max_bytes: int, address: str = "") -> Package:
    """A copy, counted and digested; blocks. Raises `CodeUnavailable`, `BadCode`, `StorageFull`."""
    with Intake(into, max_bytes, address or str(source)) as intake:
        try:
            intake.take_file(source)
        except OSError as error:
            raise CodeUnavailable(f"{source} cannot be read: {error.strerror}") from error
        return intake.finished()
