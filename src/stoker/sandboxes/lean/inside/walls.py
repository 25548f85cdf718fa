"""The walls of one sandbox, put up from inside by its first process.

When this begins the process is the first of new pid, mount, ipc and uts namespaces, a child of the
zygote's image and of the helper as its parent, still root. From the zygote it has, once and for all:
the read-only root of its launch (copied with the mount namespace), no_new_privs, a session keyring of
its own, resource limits. What is left is what must differ from one sandbox to the next.

The order matters: cgroup first, so that everything counts; mounts while still root; the user namespace
last of all namespaces, so that nothing inside has authority over the others; then what joining it has
reset (it gives every capability for what belongs to it, a full bounding set, open securebits); and the
filter, which knows nothing of all this, at the end.
"""

from __future__ import annotations

import os
import resource
import signal

from stoker.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
    SECUREBITS,
    close_range,
    drop_bounding_set,
    drop_capabilities,
    load_filter,
    mount,
    prctl,
    sethostname,
    setns,
    umount,
    unshare,
)
from stoker.sandboxes.lean.packets import Fork

CHANNEL, PERMITS, PRIVATE = 3, 4, 5
HOSTNAME = "sandbox"
BORROWED_PROC = "/.proc"  # the host's, in the zygote of who may mount his own only while another is in sight
NOBODY = 65534  # the one user and group that the namespace has a name for, as in `linux.users`
# World-readable files of /proc that tell of the host; what else does is root's, and the mount is read-only.
MASKED = (
    "kallsyms",
    "keys",
    "key-users",
    "interrupts",
    "softirqs",
    "timer_list",
    "sched_debug",
    "sysvipc/shm",
)
SHM_INODES = 4096


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


def raise_walls(orders: Orders, filters: tuple[bytes, ...], masked: tuple[str, ...]) -> None:
    """Everything, in order. Raises `OSError` with what could not be done."""
    if orders.cgroup < 0:
        for descriptor in orders.joining:
            os.write(descriptor, b"0")
    if not orders.fork.keeps_network:
        setns(orders.network, CLONE_NEWNET)
    unshare(CLONE_NEWCGROUP)
    sethostname(HOSTNAME)
    _mount(orders.fork, masked)
    _bound(orders.fork)
    _become_nobody(orders.user)
    _arrange_descriptors(orders)
    # Both are reset by a change of user.
    prctl(PR_SET_DUMPABLE, 0)
    # A helper that ended before this line is told by the end of the private socket, on which we wait next.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for program in filters:
        load_filter(program)


def _mount(fork: Fork, masked: tuple[str, ...]) -> None:
    safe = MS_NOSUID | MS_NODEV
    # Read-only as a whole: stronger than a list of its writable files, and one mount instead of many.
    mount("proc", "/proc", "proc", safe | MS_NOEXEC | MS_RDONLY)
    if os.path.isdir(BORROWED_PROC):
        umount(BORROWED_PROC)
    for name in masked:
        mount("/dev/null", "/proc/" + name, None, MS_BIND)
    caps = f"size={fork.scratch_bytes},nr_inodes={fork.scratch_inodes},mode=1777"
    mount("tmpfs", "/tmp", "tmpfs", safe, caps)
    caps = f"size={fork.scratch_bytes},nr_inodes={SHM_INODES},mode=1777"
    mount("tmpfs", "/dev/shm", "tmpfs", safe | MS_NOEXEC, caps)


def _arrange_descriptors(orders: Orders) -> None:
    """Ours become 0 to 5, and nothing else is open."""
    null = os.open("/dev/null", os.O_RDONLY)
    inside = (null, orders.stdout, orders.stderr, orders.channel, orders.permits, orders.private)
    for target, source in enumerate(inside):
        os.dup2(source, target, target != PRIVATE)
    orders.private = PRIVATE
    close_range(PRIVATE + 1)


def _bound(fork: Fork) -> None:
    limit(resource.RLIMIT_FSIZE, fork.file_bytes)
    if fork.processes:
        limit(resource.RLIMIT_NPROC, fork.processes)
    os.setsid()
    os.umask(0o022)


def limit(kind: int, bound: int) -> None:
    """Set both limits, to what was there where that is less: who is not root cannot raise them."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def _become_nobody(namespace: int) -> None:
    """The one user of that namespace, without any privilege in it."""
    setns(namespace, CLONE_NEWUSER)
    prctl(PR_SET_SECUREBITS, SECUREBITS)
    drop_bounding_set()
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    drop_capabilities()
