"""What tests left on this machine: whatever carries a mark of this run, and what it changed for all.

A mark is a text that stands in everything made by this run and in nothing made by anybody else: the
folder of the run, and the ids of the nodes made in it. Other nodes on the machine are never looked at.
Looked for are processes (by command, environment, folder, cgroup, mounts, and the users that a node's id
gives to its sandboxes), mounts, cgroups, network interfaces, nftables tables, files where programs leave
them (named network namespaces among them), and an engine's containers and images. A namespace without
a name is held by a process or by a descriptor: `descriptors` tells those of this one.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

WATCHED = "WARDEN_MARKS"
CGROUPS = Path("/sys/fs/cgroup")
LITTERED = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/netns", "/run/lock", "/var/lib")))
INTERFACES = Path("/sys/class/net")
ENGINE = Path("/run/docker.sock")
FORWARDING = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
KEPT = frozenset({"/dev/null", "anon_inode:[eventfd]", "anon_inode:[eventpoll]"})  # by libraries, for good
USERS = 0x1_0000  # of each node, from its first one on
PATIENCE_S = 2.0  # what ends a sandbox may take this long to be gone from every list


def watch(*marks: str) -> None:
    """Have these looked for at the end of the whole run too, by its warden if it has one."""
    if WATCHED in os.environ:
        with Path(os.environ[WATCHED]).open("a") as file:
            file.writelines(f"{mark}\n" for mark in marks)


def watched(file: Path) -> list[str]:
    """What was told to `watch`."""
    return file.read_text().split("\n")[:-1] if file.exists() else []


def found(marks: Collection[str]) -> list[str]:
    """Everything on the machine that carries one of the marks, described; empty is clean."""
    if not marks:
        return []
    here = (*_processes(marks), *_mounts(marks), *_cgroups(marks), *_files(marks))
    return sorted({*here, *_interfaces(marks), *tables(marks), *_containers(marks)})


def left(marks: Collection[str], patience_s: float = PATIENCE_S) -> list[str]:
    """What is still there when the patience is over; returns at once when nothing is."""
    give_up = time.monotonic() + patience_s
    while (things := found(marks)) and time.monotonic() < give_up:
        threading.Event().wait(0.05)
    return things


def forwarding() -> dict[str, str]:
    """Whether this machine passes packets on: what a node may switch on, and switches off again."""
    return {str(path): _read(path).decode().strip() for path in FORWARDING if path.exists()}


def switched_on(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What is on that `forwarding` found off, unless somebody else's nodes are at work here."""
    on = [f"{path} is {now[path]}, and was 0" for path, was in before.items() if was == "0" != now[path]]
    return [] if list(tables(["stoker"])) else on


def descriptors() -> set[str]:
    """What this process has open: files, sockets, pipes, namespaces, processes."""
    found = {_link(fd) for fd in Path("/proc/self/fd").iterdir()}
    return found - KEPT - {""}  # the one they were listed by is gone already


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
    for pid in processes(marks):
        folder = Path("/proc", str(pid))
        command = (_read(folder / "cmdline") or _read(folder / "comm")).replace(b"\0", b" ")
        yield f"process {pid}: {command.decode(errors='replace').strip()}"[:200]


def processes(marks: Collection[str]) -> Iterator[int]:
    """Every process that carries one of the marks."""
    ours = _link(Path("/proc/self/ns/mnt"))
    mine = {os.getpid(), os.getppid()}
    users = _users(marks)
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) in mine or b") Z 1 " in _read(folder / "stat"):
            continue  # the machine's first process collects what has ended when it comes to it
        said: list[bytes | str] = [_read(folder / name) for name in ("cmdline", "environ", "cgroup")]
        said.append(_link(folder / "cwd"))
        if _link(folder / "ns/mnt") not in ("", ours):
            said.append(_read(folder / "mountinfo"))
        if any(_has(marks, text) for text in said) or _belongs(folder, users, said[2]):
            yield int(folder.name)


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


def _users(marks: Collection[str]) -> list[int]:
    """The first user of each node whose id is among the marks."""
    from stoker.sandboxes.lean.settings import Settings

    return [Settings(node_id=mark).first_uid for mark in marks if re.fullmatch(r"[0-9a-f]{8}", mark)]


def _belongs(process: Path, users: list[int], groups: bytes | str) -> bool:
    """Whether it is of one of the users, and not in the cgroup of a node: two may have the same ones."""
    if re.search(rb"stoker-[0-9a-f]{8}", os.fsencode(groups)):
        return False  # of another: those of the marks have been found by it
    # Not the folder's owner: of a process that may not be looked into, that is root.
    said = re.search(rb"^Uid:\t(\d+)", _read(process / "status"), re.M) if users else None
    return said is not None and any(first <= int(said[1]) < first + USERS for first in users)


def _interfaces(marks: Collection[str]) -> Iterator[str]:
    for interface in INTERFACES.iterdir():
        if _has(marks, f"{interface.name} {_read(interface / 'ifalias')!r}"):
            yield f"interface {interface.name}"


def tables(marks: Collection[str]) -> Iterator[str]:
    """The tables of nftables that carry one of the marks, described."""
    for line in _said("nft", "list", "tables"):
        if _has(marks, line):
            yield f"nftables {line}"


def _containers(marks: Collection[str]) -> Iterator[str]:
    if ENGINE.exists() and stat.S_ISSOCK(ENGINE.stat().st_mode):
        for line in _said(
            "docker", "ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.Labels}} {{.Mounts}}"
        ):
            if _has(marks, line):
                yield f"container {line}"
        for line in _said("docker", "images", "--format", "{{.Repository}}:{{.Tag}}"):
            if _has(marks, line):
                yield f"image {line}"


def _said(*command: str) -> list[str]:
    """The lines of a tool's answer; none where there is no such tool, or it may not."""
    if os.geteuid() != 0 or shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
