"""What tests left on this machine: processes, mounts, cgroups and files that carry a mark of this run.

A mark is a text that stands in everything made by this run and in nothing made by anybody else: the
folder of the run, and the ids of the nodes made in it. Other nodes on the machine are never looked at.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LITTERED = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/netns", "/var/lib")))
PATIENCE_S = 2.0  # what ends a sandbox may take this long to be gone from every list


def found(marks: Collection[str]) -> list[str]:
    """Everything on the machine that carries one of the marks, described; empty is clean."""
    if not marks:
        return []
    return sorted({*_processes(marks), *_mounts(marks), *_cgroups(marks), *_files(marks)})


def left(marks: Collection[str], patience_s: float = PATIENCE_S) -> list[str]:
    """What is still there when the patience is over; returns at once when nothing is."""
    give_up = time.monotonic() + patience_s
    while (things := found(marks)) and time.monotonic() < give_up:
        threading.Event().wait(0.05)
    return things


def remove(folder: Path) -> None:
    """Delete a node's home with what is sealed in it, which only root could without more ado."""
    for inner, _, _ in os.walk(folder):
        os.chmod(inner, 0o700)
    shutil.rmtree(folder)


def zombies() -> list[str]:
    """Our own children that have ended and that nobody has waited for."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in _read(task / "children").split():
            if b") Z " in _read(Path("/proc") / os.fsdecode(pid) / "stat"):
                found.append(f"process {pid.decode()} has ended and was never waited for")
    return found


def _read(path: Path) -> bytes:
    """The file, or nothing when it has gone meanwhile or is not ours to read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _has(marks: Collection[str], text: bytes | str) -> bool:
    text = text if isinstance(text, str) else os.fsdecode(text)
    return any(mark in text for mark in marks)


def _processes(marks: Collection[str]) -> Iterator[str]:
    ours = _link(Path("/proc/self/ns/mnt"))
    mine = {os.getpid(), os.getppid()}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) in mine:
            continue
        said: list[bytes | str] = [_read(folder / name) for name in ("cmdline", "environ", "cgroup")]
        said.append(_link(folder / "cwd"))
        if _link(folder / "ns/mnt") not in ("", ours):
            said.append(_read(folder / "mountinfo"))
        if any(_has(marks, text) for text in said):
            command = (_read(folder / "cmdline") or _read(folder / "comm")).replace(b"\0", b" ")
            yield f"process {folder.name}: {command.decode(errors='replace').strip()}"[:200]


def _mounts(marks: Collection[str]) -> Iterator[str]:
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        if _has(marks, line):
            yield f"mount {line.split()[4].decode(errors='replace')}"


def _cgroups(marks: Collection[str]) -> Iterator[str]:
    for folder, names, _ in os.walk(CGROUPS):
        for name in names:
            if _has(marks, name):
                yield f"cgroup {folder}/{name}"


def _files(marks: Collection[str]) -> Iterator[str]:
    for folder in LITTERED:
        if folder.is_dir():
            for name in os.listdir(folder):
                if _has(marks, name):
                    yield f"file {folder / name}"
