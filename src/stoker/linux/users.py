"""User namespaces that know one user: inside he is nobody, outside a number that no one else has.

Theory. Who joins such a namespace has no authority over anything that was there before: his files,
signals and limits are those of the user outside, and a capability, should he ever gain one, would
count for nothing but the namespace itself. It holds nothing of who was in it: keys are refused by
the filter, counters go back with the processes. So one is made for each user outside and kept; where there is
but one user to be had outside, one for each sandbox at a time, as what is counted is counted in each.

The user outside is also made its owner: what is counted for the owner of a namespace (processes,
pending signals, locked memory, namespaces) is then counted for nobody's account but his own.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple, NoReturn

from stoker.linux.syscalls import CLONE_NEWUSER, NO_SETUID_FIXUP, PR_SET_SECUREBITS, prctl, unshare

NESTED = tuple(f"max_{kind}_namespaces" for kind in "user mnt pid net ipc uts cgroup time".split())


class User(NamedTuple):
    """Whom a process is, as user and as group."""

    uid: int
    gid: int


NOBODY = User(65534, 65534)


class UserNamespaces:
    """Namespaces in which `NOBODY` is a certain user outside. HOLDS: one thread."""

    def __init__(self) -> None:
        self._kept: dict[tuple[User, int], int] = {}

    def __repr__(self) -> str:
        return f"<UserNamespaces, {len(self._kept)} kept>"

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, user: User, slot: int) -> int:
        """The descriptor of his for that slot, which stays ours. Raises `OSError`."""
        if (user, slot) not in self._kept:
            self._kept[user, slot] = make_user_namespace(NOBODY, user)
        return self._kept[user, slot]


def make_user_namespace(inside: User, outside: User) -> int:
    """A new user namespace, by descriptor, which maps these two to each other and nobody else.

    HOLDS: one thread. The child that makes it ends before this returns, also when we are killed.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()  # or it would never hear that we have ended
        _make_and_wait(theirs, outside)
    theirs.close()
    try:
        with ours:
            trouble = ours.recv(1000)
            if trouble != b"\0":
                text = trouble.decode(errors="replace") or "its maker ended"
                raise OSError(f"no user namespace for user {outside.uid}: {text}")
            return _map(f"/proc/{child}", inside, outside)
    finally:
        os.waitpid(child, 0)


def _make_and_wait(link: socket.socket, owner: User) -> NoReturn:
    """The child's side: be in a new namespace of that owner until the other end closes."""
    try:
        try:
            prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP)  # a kernel may want CAP_SYS_ADMIN for the new one
            os.setegid(owner.gid)
            os.seteuid(owner.uid)
            unshare(CLONE_NEWUSER)
            _refuse_nested()
            link.send(b"\0")
        except OSError as error:
            link.send(str(error).encode())
        link.recv(1)
    finally:
        os._exit(0)


def _refuse_nested() -> None:
    """No namespace below this one, should a filter ever let somebody try."""
    for name in NESTED:
        try:
            _write(f"/proc/sys/user/{name}", "0")
        except OSError:
            pass  # a kernel without that kind, or a `/proc` that is read-only: then the filter stands alone


def _map(process: str, inside: User, outside: User) -> int:
    _write(f"{process}/uid_map", f"{inside.uid} {outside.uid} 1")
    _write(f"{process}/setgroups", "deny")
    _write(f"{process}/gid_map", f"{inside.gid} {outside.gid} 1")
    return os.open(f"{process}/ns/user", os.O_RDONLY)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
