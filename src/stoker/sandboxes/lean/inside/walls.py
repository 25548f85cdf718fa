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

import signal
from collections.abc import Callable

# Each by its own name: to look for it in its module, what is forked would copy the page of the module, of its
# dictionary, of the word and of the cache of types, and each takes 2 us.
from os import O_RDONLY, chdir, chroot, close, dup2, execve, setresgid, setresuid, setsid, umask, write
from os import open as open_file
from resource import RLIM_INFINITY, RLIMIT_FSIZE, RLIMIT_NPROC, getrlimit, setrlimit
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
from stoker.sandboxes.lean.packets import MOUNTED

CHANNEL, PERMITS, PRIVATE = 3, 4, 5
KILL = int(signal.SIGKILL)  # its look among its like would be an enumeration's
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
    borrows_proc: bool
    filter: Filter
    """The last; the zygote has loaded the one before it."""


class Orders:
    """What one FORK packet says, with its descriptors. HOLDS: all of these are above `PRIVATE`."""

    def __init__(self, fork: tuple[int, ...], descriptors: list[int]) -> None:
        """What the numbers are, `Fork` says; a named one would be looked at by way of its type."""
        self.scratch_bytes, self.scratch_inodes, self.file_bytes, self.processes, *flags = fork
        is_version_2, self.keeps_network = flags
        self.channel, self.stdout, self.stderr, self.permits, self.private = descriptors[:5]
        self.network, self.user, *self.joining = descriptors[5:]
        self.cgroup = self.joining[0] if is_version_2 and self.joining else -1

    def close(self) -> None:
        """Give up what the sandbox has now."""
        inside = (self.channel, self.stdout, self.stderr, self.permits, self.private)
        for descriptor in (*inside, self.network, self.user, *self.joining):
            close(descriptor)


def raise_walls(orders: Orders, ground: Ground) -> None:
    """Everything, in order. Raises `OSError` with what could not be done."""
    for step in STEPS:
        step(orders, ground)


def rehearse() -> None:
    """Have libc's functions looked up that only a sandbox calls, which takes reading in all libraries."""
    chroot("/")
    umask(0o022)
    setsid()
    try:
        execve("/", ["/"], {})
    except OSError:
        pass


def _join_groups(orders: Orders, _: Ground) -> None:
    if orders.cgroup < 0:
        for descriptor in orders.joining:
            write(descriptor, b"0")


def _join_network(orders: Orders, _: Ground) -> None:
    if not orders.keeps_network:
        setns(orders.network, CLONE_NEWNET)


def _hide_groups(_: Orders, __: Ground) -> None:
    unshare(CLONE_NEWCGROUP)


def _take_a_name(_: Orders, __: Ground) -> None:
    sethostname(HOSTNAME)


def _own_inodes(_: Orders, ground: Ground) -> None:
    """An overlay over every read-only tree, and in it the same mounts again. Leaves us in the old root."""
    chdir("/")  # until there is a `/proc`, what is relative is the old root's
    _overlay(".", "/")
    chroot("/..")  # `/` is the process's root, `/..` what has been mounted on it since
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
    if ground.borrows_proc:
        umount(BORROWED_PROC[1:])
    chdir("/")


def _mask_proc(_: Orders, ground: Ground) -> None:
    for name in ground.masked:
        mount("/dev/null", "/proc/" + name, None, MS_BIND)


def _mount_scratch(orders: Orders, _: Ground) -> None:
    size = orders.scratch_bytes
    caps = f"size={size},nr_inodes={orders.scratch_inodes},mode=1777"
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, caps)
    caps = f"size={size},nr_inodes={SHM_INODES},mode=1777"
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, caps)


def _say_mounted(orders: Orders, _: Ground) -> None:
    """The helper moves the function's code into this root while we go on."""
    write(orders.private, MOUNTED)


def _bound(orders: Orders, _: Ground) -> None:
    limit(RLIMIT_FSIZE, orders.file_bytes)
    if orders.processes:
        limit(RLIMIT_NPROC, orders.processes)


def _leave_session(_: Orders, __: Ground) -> None:
    setsid()
    umask(0o022)


def _become_nobody(orders: Orders, _: Ground) -> None:
    """The one user of its namespace."""
    setns(orders.user, CLONE_NEWUSER)
    setresgid(NOBODY, NOBODY, NOBODY)
    setresuid(NOBODY, NOBODY, NOBODY)


def _give_up_privileges(_: Orders, __: Ground) -> None:
    """What the namespace has given: nobody in it keeps or gains any of that."""
    prctl(PR_SET_SECUREBITS, SECUREBITS)
    drop_bounding_set()
    drop_capabilities()


def _arrange_descriptors(orders: Orders, _: Ground) -> None:
    """Ours become 0 to 5, and nothing else is open."""
    null = open_file("/dev/null", O_RDONLY)
    inside = (null, orders.stdout, orders.stderr, orders.channel, orders.permits, orders.private)
    for target, source in enumerate(inside):
        dup2(source, target)
    orders.private = PRIVATE
    close_range(PRIVATE + 1)


def limit(kind: int, bound: int) -> None:
    """Set both limits, to what was there where that is less: who is not root cannot raise them."""
    hard = getrlimit(kind)[1]
    if hard != RLIM_INFINITY:
        bound = min(bound, hard)
    setrlimit(kind, (bound, bound))


def _end_with_the_helper(_: Orders, __: Ground) -> None:
    """Both are reset by a change of user."""
    prctl(PR_SET_DUMPABLE, 0)
    # A helper that ended before this line is told by the end of the private socket, on which we wait next.
    prctl(PR_SET_PDEATHSIG, KILL)


def _narrow_the_kernel(_: Orders, ground: Ground) -> None:
    ground.filter.load()


# With the names under which `scripts/bench` says what each costs.
NAMES: dict[Callable[[Orders, Ground], None], str] = {
    _join_groups: "cgroup: memory, processes, processor",
    _join_network: "network namespace",
    _hide_groups: "cgroup namespace",
    _take_a_name: "host name",
    _own_inodes: "own inodes: overlays over the root",
    _mount_proc: "/proc, read-only, hidepid",
    _mask_proc: "masks over /proc",
    _mount_scratch: "/tmp and /dev/shm",
    _say_mounted: "word to the helper",
    _bound: "resource limits",
    _leave_session: "session, umask",
    _become_nobody: "user namespace",
    _give_up_privileges: "capabilities, bounding set, securebits",
    _arrange_descriptors: "descriptors",
    _end_with_the_helper: "not dumpable, ends with the helper",
    _narrow_the_kernel: "seccomp",
}
STEPS = tuple(NAMES)
