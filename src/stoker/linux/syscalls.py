"""The system calls that Python's standard library does not have, one wrapper each.

This file is read by every interpreter that takes part in making a sandbox: the node's, the helper's
and, in a zygote, that of the function (any Python from 3.8 on). Hence nothing but the standard
library, no syntax newer than 3.8, and no import that a zygote would have to carry into every sandbox.

A wrapper either does what its name says or raises `OSError` with the name of the call. `clone3` and
all that came after Linux 5.1 have the same number on every architecture; what is older goes through
libc or stands in `OLD`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

OLD = {"x86_64": {"pivot_root": 155, "keyctl": 250}, "aarch64": {"pivot_root": 41, "keyctl": 219}}
PIDFD_SEND_SIGNAL, OPEN_TREE, MOVE_MOUNT, PIDFD_OPEN, CLONE3, CLOSE_RANGE = 424, 428, 429, 434, 435, 436
OPENAT2, MOUNT_SETATTR = 437, 442

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_NEWTIME, CLONE_PIDFD, CLONE_PARENT, CLONE_INTO_CGROUP = 0x80, 0x1000, 0x8000, 0x200000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, os.O_CLOEXEC, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 1, 2, 4, 0x100000
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 2, 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 28, 36, 38
SECCOMP_MODE_FILTER = 2
# NOROOT, NO_CAP_AMBIENT_RAISE and the locks of all four: root inside is a name like any other, for good.
SECUREBITS = 0b11101011
NO_SETUID_FIXUP = 0b100  # effective capabilities outlast a change of user
KEYCTL_JOIN_SESSION_KEYRING = 1
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
# Said once, so that no call makes an object for each argument: what a forked process touches, it copies.
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
_libc.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_NAMES = sys.getfilesystemencoding(), "surrogateescape"  # as `os.fsencode` does
_NO_CAPABILITIES = struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)
# Looked up once, before any fork: the first look makes an object, and reads the tables of all libraries. Each
# by a name of ours: a look at an attribute writes to the library's object, the word and the cache of types.
_mount, _umount2, _setns, _unshare = _libc.mount, _libc.umount2, _libc.setns, _libc.unshare
_call_with_numbers = _libc["syscall"]  # its own object, with its own types
_call_with_numbers.argtypes = [ctypes.c_long] * 4
_sethostname, _prctl, _capset, _call = _libc.sethostname, _libc.prctl, _libc.capset, _libc.syscall
# PyDLL keeps the interpreter's lock: a child made by a raw clone must find it in its own hands.
_held_call = ctypes.PyDLL(None, use_errno=True).syscall


def _checked(result: int, name: str) -> int:
    if result < 0:
        raise _failed(name)
    return result


def _failed(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")


def _syscall(name: str, number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return _checked(_call(ctypes.c_long(number), *wide), name)


def _old(name: str) -> int:
    return OLD[os.uname().machine][name]


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    names = source.encode(*_NAMES), target.encode(*_NAMES), kind.encode(*_NAMES) if kind else None
    if _mount(*names, flags, options.encode(*_NAMES) if options else None) < 0:
        raise _failed(f"mount of {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    _checked(_umount2(os.fsencode(target), flags), f"umount of {target}")


def pivot_root(new: str, old: str) -> None:
    _syscall("pivot_root", _old("pivot_root"), os.fsencode(new), os.fsencode(old))


def openat2(path: str, flags: int, resolve: int) -> int:
    """Open `path`, looked up only as `resolve` allows."""
    how = ctypes.create_string_buffer(struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve), 24)
    return _syscall("openat2 of " + path, OPENAT2, AT_FDCWD, os.fsencode(path), how, 24)


def open_tree(path: str | None, folder: int = AT_FDCWD, recursive: bool = False) -> int:
    """A detached copy of the mount at `path`, or of what the descriptor `folder` stands for."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if path is None:
        return _syscall("open_tree", OPEN_TREE, folder, b"", flags | AT_EMPTY_PATH)
    return _syscall("open_tree of " + path, OPEN_TREE, folder, os.fsencode(path), flags)


def mount_setattr(tree: int, attributes: int, recursive: bool = False, users: int = 0) -> None:
    """Set attributes of a detached mount; for MOUNT_ATTR_IDMAP as the user namespace `users` maps."""
    asked = ctypes.create_string_buffer(struct.pack("QQQQ", attributes, 0, 0, users), 32)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", MOUNT_SETATTR, tree, b"", flags, asked, 32)


def move_mount(tree: int, target: str) -> None:
    """Attach a detached mount."""
    name, path = "move_mount to " + target, os.fsencode(target)
    _syscall(name, MOVE_MOUNT, tree, b"", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH)


def unshare(flags: int) -> None:
    if _unshare(flags) < 0:
        raise _failed("unshare")


def setns(descriptor: int, kind: int) -> None:
    if _setns(descriptor, kind) < 0:
        raise _failed("setns")


def sethostname(name: str) -> None:
    encoded = name.encode()
    if _sethostname(encoded, len(encoded)) < 0:
        raise _failed("sethostname")


def prctl(option: int, value: int = 0, third: object = None) -> None:
    if _prctl(option, value, third, 0, 0) < 0:
        raise _failed("prctl")


def drop_bounding_set() -> None:
    """Nothing executed from here on can gain a capability; those held now stay until given up."""
    capability = 0
    # Without a wrapper's words: forty calls for each sandbox.
    while _prctl(PR_CAPBSET_DROP, capability, None, 0, 0) == 0:
        capability += 1
    if ctypes.get_errno() != errno.EINVAL:  # past the last one that this kernel knows
        _checked(-1, f"drop of capability {capability}")


def drop_capabilities() -> None:
    """Give up every capability: effective, permitted and inheritable."""
    if _capset(*_NO_CAPABILITIES) < 0:
        raise _failed("capset")


def join_new_session_keyring() -> None:
    _syscall("keyctl", _old("keyctl"), KEYCTL_JOIN_SESSION_KEYRING, 0)


class Filter:
    """A compiled seccomp filter, as the kernel wants to be told it."""

    def __init__(self, program: bytes) -> None:
        self._body = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._body))
        self._head = ctypes.create_string_buffer(head, 16)

    def load(self) -> None:
        """For good. HOLDS: no_new_privs is set, or the caller has CAP_SYS_ADMIN."""
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self._head)


def close_range(first: int, last: int = 0x7FFFFFFF) -> None:
    if _call_with_numbers(CLOSE_RANGE, first, last, 0) < 0:
        raise _failed("close_range")


def clone3(flags: int, exit_signal: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork into new namespaces: (pid, pidfd) in the parent, (0, -1) in the child.

    With CLONE_PARENT the exit signal is that of the caller, and must be given as 0.

    Python's fork hooks do not run: who has one thread and holds the interpreter's lock needs nothing that
    they mend, and `os.fork()` in the child runs them all. What neither they nor glibc's know: in the child
    the thread id that libc has cached is its parent's, so that `abort()` and `raise()` miss there. Therefore
    no user code runs in this child but in one that it makes with `os.fork()`, which sets the cache right.
    """
    pidfd = ctypes.c_int(-1)
    if cgroup >= 0:
        flags |= CLONE_INTO_CGROUP
    fields = (flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup, 0))
    pid = _held_call(ctypes.c_long(CLONE3), struct.pack("11Q", *fields), ctypes.c_long(88))
    if pid < 0:
        raise _failed("clone3")
    return (pid, pidfd.value) if pid else (0, -1)


def pidfd_open(pid: int) -> int:
    return _syscall("pidfd_open", PIDFD_OPEN, pid, 0)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    _syscall("pidfd_send_signal", PIDFD_SEND_SIGNAL, pidfd, number, None, 0)


def is_supported_machine() -> bool:
    return sys.maxsize > 2**32 and os.uname().machine in OLD
