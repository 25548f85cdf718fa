"""What a runtime promises: which interpreters this machine has, and how to start its server inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import msgspec

from stoker.sandboxes.contract import Launch, Problem


class Interpreter(msgspec.Struct, frozen=True):
    """An installed interpreter of one language."""

    version: str
    """For example `3.11.7`, `20.20.2`."""
    binary: Path
    """The real binary, no shim and no link."""
    prefix: Path
    """Where it and its standard library live."""


def parse_version(text: str) -> tuple[int, ...]:
    """`3.11.7` as (3, 11, 7). Raises ValueError for anything but numbers and dots."""
    return tuple(int(part) for part in text.split("."))


class Runtime(ABC):
    """One language."""

    name: ClassVar[str]
    """Its folder's name: `python`, `nodejs`."""
    spellings: ClassVar[tuple[str, ...]]
    """What users call it before any version: `python`; `nodejs`, `node`."""
    default_handler: ClassVar[str]
    """For example `main.lambda_handler`."""

    @abstractmethod
    def problems(self) -> list[Problem]:
        """Why this machine cannot run the language; empty when it can."""

    @abstractmethod
    def interpreters(self) -> list[Interpreter]:
        """Those installed, newest first; found once, at the first question."""

    def default(self) -> Interpreter:
        """The one for functions that ask for no version; asked only when there is one."""
        return self.interpreters()[0]

    @abstractmethod
    def launch(self, interpreter: Interpreter) -> Launch:
        """How to start the server that speaks the frames of `docs/wire.md`."""

    @abstractmethod
    def entry_file(self, handler: str) -> str:
        """The file, relative to the code folder, that must exist for this handler: `main.py`."""
