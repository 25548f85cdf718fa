"""Files that a living process holds: who holds them is the kernel's word, never a number read from a file.

Theory. A pid in a file says nothing: the process may be gone and its number somebody else's. So the
node keeps a POSIX record lock on the file for as long as it lives. The kernel drops the lock when
the process ends, however it ends, and tells everybody who asks (`F_GETLK`) the pid of the holder.
The lock reaches from an offset to the end, so any two exclude each other, and the offset carries one
more fact that cannot be stale: the port.

HOLDS: such a lock is the process's, not the descriptor's. It does not survive a fork (so the daemon
takes it after its fork, and a helper forked from the node holds nothing), and closing *any*
descriptor of the file drops it: the holder opens the file once and never again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

import msgspec

FLOCK = "@hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Holder(msgspec.Struct, frozen=True):
    """A living process that holds a file."""

    pid: int
    """0: it lives in a container that this process cannot see into."""
    mark: int
    """What it said when it took the file."""


class Held(Exception):
    """Somebody else holds the file."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(f"held by process {holder.pid}")
        self.holder = holder


class Lock:
    """A file this process holds until it ends or calls `release`."""

    def __init__(self, path: Path, mark: int) -> None:
        """Take it; it is made if it is not there. Raises `Held`, `OSError`."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError(errno.EINVAL, f"{path} is no regular file")
            _take(self._fd, mark)
        except BaseException:
            os.close(self._fd)
            raise

    def __repr__(self) -> str:
        return f"<Lock {self.path} {'held' if self._fd >= 0 else 'released'}>"

    @property
    def fd(self) -> int:
        """Its only descriptor."""
        return self._fd

    def write(self, text: str) -> None:
        """Replace what the file says."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Let go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        """Let go and remove the file, if its folder allows."""
        try:
            if self._fd >= 0 and os.path.samestat(os.fstat(self._fd), self.path.lstat()):
                self.path.unlink()
        except OSError:
            pass
        self.release()


def _take(fd: int, mark: int) -> None:
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, mark)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        holder = _holder_of(fd)
        if holder is not None:  # else it has just let go
            raise Held(holder)


def holder(path: Path) -> Holder | None:
    """Who holds the file; None: nobody, or there is no such file. Never call it in the process that may.

    Raises `OSError` when the file cannot be looked at.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _holder_of(fd)
    finally:
        os.close(fd)


def _holder_of(fd: int) -> Holder | None:
    asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, start, _, pid = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else Holder(pid, start)
