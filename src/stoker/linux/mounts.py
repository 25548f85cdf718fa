"""Mounts: detached copies that are attached elsewhere, so that no name on the way can be changed."""

from __future__ import annotations

import errno
import os
import re

from stoker.linux.syscalls import (
    CLONE_NEWNS,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    setns,
    umount,
    unshare,
)

SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
READ_ONLY = SAFE | MOUNT_ATTR_RDONLY


def copy_of(path: str | None, attributes: int, folder: int = -100, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` (or of the descriptor `folder`) with these attributes."""
    tree = open_tree(path, folder, recursive)
    try:
        mount_setattr(tree, attributes, recursive)
    except OSError:
        os.close(tree)
        raise
    return tree


def attach(tree: int, target: str) -> None:
    """Attach a detached copy and give up its descriptor."""
    try:
        move_mount(tree, target)
    finally:
        os.close(tree)


def try_map_users(tree: int, users: int) -> bool:
    """Show files of a detached copy as that user namespace maps them; False where the file system cannot."""
    try:
        mount_setattr(tree, MOUNT_ATTR_IDMAP, users=users)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def leave_the_hosts() -> None:
    """A mount namespace of our own, from which nothing reaches the host's."""
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def make_root(folder: str) -> None:
    """Make `folder`, a mount, the root; detach all that was mounted before."""
    os.chdir(folder)
    # The old root on top of the new one: no folder is needed to put it in, and "." is then the old.
    pivot_root(".", ".")
    umount(".")
    os.chdir("/")


def mounted_below_root(proc: int) -> list[str]:
    """Where something is mounted in this process's root, by a descriptor of /proc; outer before inner."""
    descriptor = os.open("self/mountinfo", os.O_RDONLY, dir_fd=proc)
    with open(descriptor, "rb") as file:
        points = {line.split(b" ")[4] for line in file.read().splitlines()}
    decoded = (re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), point) for point in points)
    return sorted(os.fsdecode(point) for point in decoded if point != b"/")


class MountNamespace:
    """The way into other mount namespaces and back.

    HOLDS: the calling process has one thread, and elsewhere it looks up no name but targets of `attach`
    that no stranger could have changed.
    """

    def __init__(self, can_enter_any: bool = True) -> None:
        self._home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self._can_enter_any = can_enter_any

    def copy_of(self, pidfd: int, source: int, attributes: int) -> int:
        """A detached copy of what the descriptor `source` stands for, which that process has opened.

        The kernel copies a mount only to who is in its mount namespace, whatever he holds of it.
        """
        if not self._can_enter_any:
            return _copy_found_again(source, attributes)
        setns(pidfd, CLONE_NEWNS)
        try:
            return copy_of(None, attributes, source)
        finally:
            setns(self._home, CLONE_NEWNS)

    def attach_in(self, pidfd: int, trees: list[tuple[int, str]]) -> None:
        """Attach detached copies in the namespace of that process."""
        setns(pidfd, CLONE_NEWNS)
        try:
            for tree, target in trees:
                move_mount(tree, target)
        finally:
            setns(self._home, CLONE_NEWNS)


def _copy_found_again(source: int, attributes: int) -> int:
    """The same from our own copy of that process's mounts: the same folder by its path, or `OSError`."""
    path = os.readlink(f"/proc/self/fd/{source}")
    found = openat2(path, os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    try:
        if not os.path.samestat(os.fstat(found), os.fstat(source)):
            raise OSError(errno.ESTALE, "another folder is there by now", path)
        # Recursive: what the user's own namespace has mounted on it is locked to it.
        return copy_of(None, attributes, found, recursive=True)
    finally:
        os.close(found)
