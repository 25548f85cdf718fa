"""What an ordinary user has of root's powers: those over a user namespace of his own.

Theory. Who makes a user namespace is root in it, that is over every other namespace made from within,
and has outside no right that he did not have before. Of all users it can know but the one who made it:
more would take `newuidmap` and ranges that somebody has set aside. Mounts that came along from outside
stay locked together, `/proc` may be mounted only where one is to be seen whole already, no device can
be made, and there is no way back: a namespace that belongs to the outside cannot be entered any more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from stoker.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    PR_SET_DUMPABLE,
    mount,
    prctl,
    unshare,
)

EVERYBODY = ["0", "0", "4294967295"]
KINDS = {
    "mnt": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
}


class Obstacle(NamedTuple):
    """The first step that the kernel forbids: a kind of namespace, `map`, `mount`, `overlay` or `proc`."""

    step: str
    errno: int


def is_root() -> bool:
    """Whether this is root of the machine, and not of some user namespace."""
    with open("/proc/self/uid_map") as file:
        return os.geteuid() == 0 and file.read().split() == EVERYBODY


def become_root_of_own() -> None:
    """Enter a user namespace in which this user is root, and a mount namespace that belongs to it.

    HOLDS: one thread; and who does this executes a program next. Until then the process's memory belongs
    to the namespace outside, and what is forked from it could be looked into by nobody in here.
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    _map(uid, gid)
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def _map(uid: int, gid: int) -> None:
    # The kernel lets only those groups be dropped that the namespace knows: the others stay.
    for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def find_obstacle() -> Obstacle | None:
    """What keeps this user from it, found by trying everything in a child."""
    said, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try_all(saying)
    os.close(saying)
    try:
        step, _, number = os.read(said, 100).decode().partition(" ")
    finally:
        os.close(said)
        os.waitpid(pid, 0)
    return Obstacle(step, int(number)) if step else None


def _try_all(saying: int) -> NoReturn:
    """The child's side: say the first step that fails."""
    uid, gid = os.geteuid(), os.getegid()
    prctl(PR_SET_DUMPABLE, 1)  # who has changed his user may not write his own maps until he executes
    steps: list[tuple[str, Callable[[], object]]] = [
        ("user", lambda: unshare(CLONE_NEWUSER)),
        ("map", lambda: _map(uid, gid)),
        *((kind, lambda flag=flag: unshare(flag)) for kind, flag in KINDS.items()),
        ("mount", lambda: mount("none", "/", None, MS_REC | MS_PRIVATE)),
        ("overlay", lambda: mount("overlay", "/usr", "overlay", MS_RDONLY, "lowerdir=/usr:/etc")),
    ]
    try:
        for name, step in steps:
            _try(name, step, saying)
        # It needs a process that is in the new pid namespace.
        inner = os.fork()
        if inner == 0:
            safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
            _try("proc", lambda: mount("proc", "/proc", "proc", safe), saying)
        else:
            os.waitpid(inner, 0)
    finally:
        os._exit(0)


def _try(name: str, step: Callable[[], object], saying: int) -> None:
    try:
        step()
    except OSError as error:
        os.write(saying, f"{name} {error.errno}".encode())
        os._exit(1)
