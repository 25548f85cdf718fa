"""Become a process that was frozen (`freezing`)."""

from __future__ import annotations

import json
import os

from .anchor import LETTER_BYTES, REGISTERS, Anchor
from .freezing import FILE_FD, HEAD, MAGIC, OPENED_FD

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any


def thaw(anchor: Anchor, file: int, letter: bytes, load: dict[str, Any]) -> None:
    """Become what was frozen there, which finds the letter; return only if that cannot be done."""
    script = _read_script(anchor, file, load) if len(letter) <= LETTER_BYTES else b""
    # The script counts on these numbers being free: whatever is opened takes the lowest.
    if script and file == FILE_FD and _next_descriptor() == OPENED_FD:
        anchor.leave(letter)
        anchor.become(script)


def _read_script(anchor: Anchor, file: int, load: dict[str, Any]) -> bytes:
    head = os.pread(file, HEAD.size, 0)
    if len(head) < HEAD.size:
        return b""
    magic, lineage, at, size, checked = HEAD.unpack(head)
    if (magic, lineage) != (MAGIC, anchor.lineage):
        return b""
    said = json.loads(os.pread(file, checked, at + 56 + size))
    if not _are_as_they_were(said.get("files", {})):
        return b""
    if "imports" in said and not _fits(said, load):
        return b""
    anchor.memory[REGISTERS : REGISTERS + 56] = os.pread(file, 56, at)
    return os.pread(file, size, at + 56)


def _fits(said: dict[str, Any], load: dict[str, Any]) -> bool:
    from . import packages

    return packages.fits(said, load)


def _are_as_they_were(files: dict[str, tuple[int, int]]) -> bool:
    """Whether the files that are mapped are those that were: the system's may be renewed at any time."""
    try:
        for path, (size, time_ns) in files.items():
            status = os.stat(path)
            if (status.st_size, status.st_mtime_ns) != (size, time_ns):
                return False
    except OSError:
        return False
    return True


def _next_descriptor() -> int:
    taken = os.dup(0)
    os.close(taken)
    return taken
