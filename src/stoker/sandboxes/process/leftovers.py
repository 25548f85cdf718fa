"""Removes what a sandbox left that no supervisor could: its own was killed, or the node's machine went down.

A process is known by its environment, which names a scratch folder below our root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stoker.linux.processes import kill_and_wait
from stoker.linux.removal import is_part, remove

PATIENCE_S = 2.0  # for a killed process to be gone; one that waits for a dead disk may take for ever


def sweep(root: Path, name: str = "") -> None:
    """End every process of one sandbox, or of all, and remove its folder; blocks meanwhile."""
    marker = os.fsencode(f"TMPDIR={root}/{name}")
    give_up = time.monotonic() + PATIENCE_S
    # Again until there is none: what forks while we kill is found in the next round.
    while (pids := list(_find_marked(marker, is_whole=bool(name)))) and time.monotonic() < give_up:
        kill_and_wait(pids, give_up)
    for entry in _folders(root):
        if not name or is_part(entry, name):
            with suppress(OSError):
                remove(root, entry)


def _find_marked(marker: bytes, is_whole: bool) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            variables = _environment(entry)
            if marker in variables if is_whole else any(each.startswith(marker) for each in variables):
                yield int(entry)


def _environment(pid: str) -> list[bytes]:
    try:
        return Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
