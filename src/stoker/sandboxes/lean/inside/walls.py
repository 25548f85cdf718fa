"""The walls of one sandbox, put up from inside by its first process.

When this begins the process is the first of new pid, mount, ipc, uts and time namespaces, a child of the
zygote's image and of the helper as its parent, still root. From the zygote it has, once and for all:
the read-only root of its launch (copied with the mount namespace), no_new_privs, a session keyring of
its own, resource limits, and the larger part of the filter, which still knows the calls that are made
here. What is left is what must differ from one sandbox to the next: `STEPS`.

Their order matters: cgroup first, so that everything counts; mounts while still root; the user namespace
last of all namespaces, so that nothing inside has authority over the others; then what joining it has
reset (it gives every capability for what belongs to it, a full bounding set, open securebits); and the
rest of the filter, after which nothing of all this can be called, at the end.

Why the root is mounted once more: a lock, a lease or an inotify watch belongs to an inode, and takes no
more than reading. Over an overlay the inode is the sandbox's own, while the bytes are everybody's.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from typing import NamedTuple

from stoker.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
    SECUREBITS,
    Filter,
    close_range,
    drop_bounding_set,
    drop_capabilities,
    mount,
    prctl,
    sethostname,
    setns,
    umount,
    unshare,
)
from stoker.sandboxes.lean.packets import MOUNTED, Fork

CHANNEL, PERMITS, PRIVATE = 3, 4, 5
HOSTNAME = "sandbox"
BORROWED_PROC = "/.proc"  # the host's, in the zygote of who may mount his own only while another is in sight
NOBODY = 65534  # the one user and group that the namespace has a name for, as in `linux.users`
# What anybody may read of /proc and tells of the host; what else does is root's, and the mount is read-only.
MASKED = (
    "kallsyms",
    "keys",
    "key-users",
    "interrupts",
    "softirqs",
    "timer_list",
    "timer_stats",
    "latency_stats",
    "sched_debug",
    "sysvipc/shm",
)
SHM_INODES = 4096
FIRST = "/.first"  # the program that the first process becomes, where there is one for this machine
EMPTY = "/sys"  # a mount with nothing in it: the second layer that an overlay has to have


class Ground(NamedTuple):
    """What all sandboxes of a launch have in common."""

    masked: tuple[str, ...]
    """Names below /proc."""
    trees: tuple[str, ...]
    """Where the read-only folders of the root are mounted, those inside others after them; not the root."""
    files: tuple[str, ...]
    """Where single things are mounted."""
    filter: Filter
    """The last; the zygote has loaded the one before it."""


class Orders:
    """What one FORK packet says, with its descriptors. HOLDS: all of these are above `PRIVATE`."""

    def __init__(self, fork: Fork, descriptors: list[int]) -> None:
        self.fork = fork
        self.channel, self.stdout, self.stderr, self.permits, self.private = descriptors[:5]
        self.network, self.user, *self.joining = descriptors[5:]
        self.cgroup = self.joining[0] if fork.is_version_2 and self.joining else -1

    def close(self) -> None:
        """Give up what the sandbox has now."""
        inside = (self.channel, self.stdout, self.stderr, self.permits, self.private)
        for descriptor in (*inside, self.network, self.user, *self.joining):
            os.close(descriptor)


def raise_walls(orders: Orders, ground: Ground) -> None:
    """Everything, in order. Raises `OSError` with what could not be done."""
    for _, step in STEPS:
        step(orders, ground)


def _join_groups(orders: Orders, _: Ground) -> None:
    if orders.cgroup < 0:
        for descriptor in orders.joining:
            os.write(descriptor, b"0")


def _join_network(orders: Orders, _: Ground) -> None:
    if not orders.fork.keeps_network:
        setns(orders.network, CLONE_NEWNET)


def _hide_groups(_: Orders, __: Ground) -> None:
    unshare(CLONE_NEWCGROUP)


def _take_a_name(_: Orders, __: Ground) -> None:
    sethostname(HOSTNAME)


def _own_inodes(_: Orders, ground: Ground) -> None:
    """An overlay over every read-only tree, and in it the same mounts again. Leaves us in the old root."""
    os.chdir("/")  # until there is a `/proc`, what is relative is the old root's
    _overlay(".", "/")
    os.chroot("/..")  # `/` is the process's root, `/..` what has been mounted on it since
    # The one place where device files work; it has its few, read-only.
    mount("/dev", "/dev", None, MS_BIND)
    mount("none", "/dev", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC)
    for tree in ground.trees:
        _overlay(tree[1:], tree)
    for file in ground.files:
        mount(file[1:], file, None, MS_BIND)


def _overlay(source: str, target: str) -> None:
    mount("overlay", target, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, f"lowerdir={source}:{EMPTY[1:]}")


def _mount_proc(_: Orders, ground: Ground) -> None:
    # Read-only as a whole: stronger than a list of its writable files, and one mount instead of many.
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "hidepid=2")
    if os.path.isdir(BORROWED_PROC[1:]):
        umount(BORROWED_PROC[1:])
    os.chdir("/")


def _mask_proc(_: Orders, ground: Ground) -> None:
    for name in ground.masked:
        mount("/dev/null", "/proc/" + name, None, MS_BIND)


def _mount_scratch(orders: Orders, _: Ground) -> None:
    size = orders.fork.scratch_bytes
    caps = f"size={size},nr_inodes={orders.fork.scratch_inodes},mode=1777"
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, caps)
    caps = f"size={size},nr_inodes={SHM_INODES},mode=1777"
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, caps)


def _say_mounted(orders: Orders, _: Ground) -> None:
    """The helper moves the function's code into this root while we go on."""
    os.write(orders.private, MOUNTED)


def _bound(orders: Orders, _: Ground) -> None:
    fork = orders.fork
    limit(resource.RLIMIT_FSIZE, fork.file_bytes)
    if fork.processes:
        limit(resource.RLIMIT_NPROC, fork.processes)


def _leave_session(_: Orders, __: Ground) -> None:
    os.setsid()
    os.umask(0o022)


def _become_nobody(orders: Orders, _: Ground) -> None:
    """The one user of its namespace."""
    setns(orders.user, CLONE_NEWUSER)
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _give_up_privileges(_: Orders, __: Ground) -> None:
    """What the namespace has given: nobody in it keeps or gains any of that."""
    prctl(PR_SET_SECUREBITS, SECUREBITS)
    drop_bounding_set()
    drop_capabilities()


def _arrange_descriptors(orders: Orders, _: Ground) -> None:
    """Ours become 0 to 5, and nothing else is open."""
    null = os.open("/dev/null", os.O_RDONLY)
    inside = (null, orders.stdout, orders.stderr, orders.channel, orders.permits, orders.private)
    for target, source in enumerate(inside):
        os.dup2(source, target, target != PRIVATE)
    orders.private = PRIVATE
    close_range(PRIVATE + 1)


def limit(kind: int, bound: int) -> None:
    """Set both limits, to what was there where that is less: who is not root cannot raise them."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def _end_with_the_helper(_: Orders, __: Ground) -> None:
    """Both are reset by a change of user."""
    prctl(PR_SET_DUMPABLE, 0)
    # A helper that ended before this line is told by the end of the private socket, on which we wait next.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _narrow_the_kernel(_: Orders, ground: Ground) -> None:
    ground.filter.load()


# By the names under which `scripts/bench` says what each costs.
STEPS: tuple[tuple[str, Callable[[Orders, Ground], None]], ...] = (
    ("cgroup: memory, processes, processor", _join_groups),
    ("network namespace", _join_network),
    ("cgroup namespace", _hide_groups),
    ("host name", _take_a_name),
    ("own inodes: overlays over the root", _own_inodes),
    ("/proc, read-only, hidepid", _mount_proc),
    ("masks over /proc", _mask_proc),
    ("/tmp and /dev/shm", _mount_scratch),
    ("word to the helper", _say_mounted),
    ("resource limits", _bound),
    ("session, umask", _leave_session),
    ("user namespace", _become_nobody),
    ("capabilities, bounding set, securebits", _give_up_privileges),
    ("descriptors", _arrange_descriptors),
    ("not dumpable, ends with the helper", _end_with_the_helper),
    ("seccomp", _narrow_the_kernel),
)
