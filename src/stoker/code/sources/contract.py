"""What a source promises: one package, whole, in a file, or an error that says where it looked."""

from __future__ import annotations

import asyncio
import hashlib
import re
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from stoker.code.storage import storing
from stoker.errors import BadCode, BadRequest, CodeUnavailable
from stoker.types import MEBIBYTE

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SUFFIXES = (".zip", ".tar.gz")
LIST = "lists.txt"
MAX_LIST_BYTES = MEBIBYTE  # 8,000 of the longest names


class Package(msgspec.Struct, frozen=True):
    """One package as it was fetched."""

    digest: str
    """SHA-256 of its bytes, in hexadecimal digits."""
    size_bytes: int
    address: str
    """Where it came from, without credentials."""


class Source(ABC):
    """One place that packages come from."""

    @abstractmethod
    async def fetch(self, name: str, into: Path) -> Package:
        """The package of one function, in the file `into`, which is made. Raises `NoSuchFunction`,
        `CodeUnavailable`, `BadCode` (too large), `StorageFull`."""

    @abstractmethod
    async def list_text(self) -> bytes:
        """The bytes of `lists.txt`. Raises `CodeUnavailable`."""

    async def names(self) -> list[str]:
        """The functions that `lists.txt` names. Raises `CodeUnavailable`, `BadRequest`."""
        return parse_names(await self.list_text())


def check_name(name: str) -> str:
    """The name itself, when a function may be called so. Raises `BadRequest`."""
    if NAME.fullmatch(name) is None:
        shown = name if len(name) <= 80 else name[:80] + "…"
        raise BadRequest(
            f"{shown!r} is no name of a function: 1 to 128 letters, digits, '.', '_' and '-', "
            "the first a letter or a digit"
        )
    return name


def parse_names(text: bytes) -> list[str]:
    """One name a line, each once; empty lines are nothing."""
    lines = text.decode("utf-8-sig", "replace").splitlines()
    return list(dict.fromkeys(check_name(line.strip()) for line in lines if line.strip()))


class Intake:
    """Takes a package's bytes as they come: to a new file, counted and digested, never held in memory."""

    def __init__(self, into: Path, max_bytes: int, address: str) -> None:
        self._max_bytes = max_bytes
        self._address = address
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.size_bytes = 0
        with storing(f"fetching {address}"):
            self._file = open(into, "xb", buffering=0)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def expect(self, size_bytes: int | None) -> None:
        """Refuse early what will be too large. Raises `BadCode`."""
        if size_bytes is not None and size_bytes > self._max_bytes:
            raise BadCode(
                f"the package {self._address} is larger than this node takes: "
                f"max_package_mb is {self._max_bytes // MEBIBYTE}"
            )

    async def take(self, chunk: bytes) -> None:
        """Raises `BadCode` as soon as it is too large, `StorageFull`."""
        self.size_bytes += len(chunk)
        self.expect(self.size_bytes)
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= MEBIBYTE:
            await asyncio.to_thread(self._write)

    def take_file(self, source: Path) -> None:
        """All of a file, in the caller's own thread."""
        with open(source, "rb", buffering=0) as file:
            while chunk := file.read(MEBIBYTE):
                self.size_bytes += len(chunk)
                self.expect(self.size_bytes)
                self._pending.append(chunk)
                self._write()

    def _write(self) -> None:
        with storing(f"fetching {self._address}"):
            for chunk in self._pending:
                self._digest.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[self._file.write(rest) :]
        self._pending.clear()
        self._pending_bytes = 0

    async def finish(self) -> Package:
        """What was taken, all of it written."""
        await asyncio.to_thread(self._write)
        return self.finished()

    def finished(self) -> Package:
        """The same, in the caller's own thread."""
        self._write()
        if not self.size_bytes:
            raise CodeUnavailable(f"the package {self._address} is empty")
        return Package(self._digest.hexdigest(), self.size_bytes, self._address)
