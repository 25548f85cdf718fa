"""Gives root up for good, keeping in sight what the process still has to read.

Theory. An interpreter or a checkout may live under a home directory that only its owner may enter
(pyenv and uv under `/root`). After the change of user every later import would fail there. So before
it, in a mount namespace of this process's own, such a directory is covered by an empty one that
everybody may pass, with nothing in it but the needed paths at their own names: the rest of that home
is not merely forbidden but absent.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from stoker.linux import syscalls

PR_SET_NO_NEW_PRIVS = 38


def give_up(user: str, uid: int, needed: Iterable[Path]) -> None:
    """Become an ordinary user for good; `needed` paths stay readable.

    Raises `KeyError` when `user` is not empty and there is no such user.
    HOLDS: one thread. Namespaces and ids are each thread's own until the last of these calls.
    """
    uid, gid = identity(user, uid)
    keep_in_sight(needed)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)


def identity(user: str, uid: int) -> tuple[int, int]:
    """User and group id of `user`, or `uid` for both where no name is given."""
    if not user:
        return uid, uid
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def own_code() -> list[Path]:
    """Where this interpreter, its libraries and our own modules are."""
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    return [Path(place) for place in places if place and Path(place).exists()]


def keep_in_sight(needed: Iterable[Path]) -> None:
    """Cover every closed directory above `needed` paths by an open one that shows only those."""
    hidden: dict[Path, set[Path]] = {}
    for path in needed:
        for form in {path.absolute(), path.resolve()}:
            cover = closed_above(form)
            if cover is not None and form.exists():
                hidden.setdefault(cover, set()).add(form)
    if not hidden:
        return
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    for cover, paths in hidden.items():
        _cover(cover, outermost(paths))


def closed_above(path: Path) -> Path | None:
    """The outermost directory on the way to `path` that not everybody may enter."""
    for parent in reversed(path.parents):
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Those that lie below no other one."""
    chosen: list[Path] = []
    for path in sorted(paths):
        if not any(path.is_relative_to(other) for other in chosen):
            chosen.append(path)
    return chosen


def _cover(cover: Path, shown: list[Path]) -> None:
    links = [(path, os.readlink(path)) for path in shown if path.is_symlink()]
    trees = [
        (path, path.is_dir(), syscalls.open_tree(str(path), recursive=True))
        for path in shown
        if not path.is_symlink()
    ]
    syscalls.mount("stoker", str(cover), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    for path, target in links:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    for path, is_folder, tree in trees:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if is_folder else path.touch()
        syscalls.move_mount(tree, str(path))
        os.close(tree)
