"""A zygote: it stands in the read-only root of one launch, ready, and forks a sandbox when told to.

For a launch that can be forked it is the function's own interpreter with the runtime's server
imported, started with `START`; for any other it is a fork of the helper, and its
sandboxes execute what the launch says.

    zygote ──clone3──► first process (pid 1): walls, then reaps, tells how the second ended
                          └──fork──► second process: the runtime's server, and with it user code

Two processes, because for the first of a pid namespace the kernel ignores signals that it sends
itself: `abort()` would not be one. The first is not dumpable, so the second cannot look into it.

What a zygote wrote to its memory before a fork costs every fork time, and what a first process
writes costs every sandbox memory: hence the plain style.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import signal
import sys

# Each by its own name, as in `walls`; and sockets without what `socket` adds to them.
from _socket import AF_UNIX, SOCK_SEQPACKET, socket
from collections.abc import Callable
from os import O_DIRECTORY, O_PATH, close, execve, fork, read, setsid
from os import open as open_file

from stoker.linux.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUTS,
    CLONE_PARENT,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
    SECUREBITS,
    Filter,
    clone3,
    close_range,
    drop_bounding_set,
    join_new_session_keyring,
    prctl,
    umount,
)
from stoker.sandboxes.lean.inside.walls import (
    BORROWED_PROC,
    CHANNEL,
    FIRST,
    PERMITS,
    PRIVATE,
    Ground,
    Orders,
    limit,
    raise_walls,
    rehearse,
)
from stoker.sandboxes.lean.packets import (
    BROKEN,
    FORK,
    FORK_BODY,
    FORKED,
    FORKED_BODY,
    MAX_TEXT,
    REFUSED,
    RUNNING,
    STATUS,
    TROUBLE,
    UP,
    WAIT_STATUS,
    pack,
    receive,
    send,
    unpack,
    unpack_parts,
)

BOOT = "/.boot"
MOUNTS = "mounts"  # the file there that says what is mounted in the root, packed parts of names
START = f"import sys; sys.path.insert(0, {BOOT!r}); from {__name__} import main; main()"
CONTROL = 3
MAX_ORDER = 256  # a FORK has less; for as much as a packet may have, libc would tidy its memory
NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
RESOURCES = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_MEMLOCK: 64 * 1024,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_RTPRIO: 0,
    resource.RLIMIT_NICE: 0,
}


class Zygote:
    """What a zygote knows."""

    def __init__(self, control: socket, parts: list[bytes], mounts: bytes, is_forked: bool) -> None:
        self._control = control
        masked, _, has_time, self._filter, last_filter = parts
        trees, files = unpack_parts(mounts)
        borrows_proc = os.path.isdir(BORROWED_PROC)
        self._ground = Ground(names(masked), names(trees), names(files), borrows_proc, Filter(last_filter))
        self._namespaces = NAMESPACES | (CLONE_NEWTIME if has_time else 0)
        self._is_forked = is_forked

    def settle(self) -> None:
        """Give up, for itself and all to come, what no sandbox needs; from here on ready."""
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        join_new_session_keyring()
        for kind, bound in RESOURCES.items():
            limit(kind, bound)
        prctl(PR_SET_SECUREBITS, SECUREBITS)
        drop_bounding_set()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        Filter(self._filter).load()
        rehearse()
        send(self._control, pack(UP, 0))
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Fork sandboxes, one an order, for ever. Returns only in a sandbox, in its second process."""
        while True:
            packet, descriptors = receive(self._control, MAX_ORDER)
            if not packet:
                os._exit(0)
            kind, number, body = unpack(packet)
            assert kind == FORK
            orders = Orders(FORK_BODY.unpack(body), descriptors)
            if self._fork(number, orders) == 0:
                return
            orders.close()

    def _fork(self, number: int, orders: Orders) -> int:
        try:
            pid, pidfd = clone3(self._namespaces | CLONE_PARENT, 0, orders.cgroup)
        except OSError as error:
            send(self._control, pack(REFUSED, number, str(error).encode()[:MAX_TEXT]))
            return -1
        if pid == 0:
            self._begin(orders)
            return 0
        send(self._control, pack(FORKED, number, FORKED_BODY.pack(pid)), (pidfd,))
        close(pidfd)
        return pid

    def _begin(self, orders: Orders) -> None:
        """The life of a sandbox's first process; returns in the second."""
        self._control.detach()  # its number is the channel's from here on
        try:
            raise_walls(orders, self._ground)
            if not read(PRIVATE, 1):
                os._exit(1)
            child = self._fork_forked() if self._is_forked else self._fork_executed()
        except OSError as error:
            try:
                os.write(orders.private, TROUBLE + str(error).encode()[:MAX_TEXT])
            finally:
                os._exit(1)  # also when the helper has ended and nobody listens
        if child:
            tend(child)

    def _fork_forked(self) -> int:
        say_running()  # before the fork: nothing can go wrong any more, and the helper can go on
        child = fork()
        if child == 0:
            enter()
            close(PRIVATE)
        return child

    def _fork_executed(self) -> int:
        """The pipe closes when the second process executes, or says why it did not."""
        reading, writing = os.pipe()
        child = fork()
        if child == 0:
            enter()
            os.dup2(writing, PRIVATE, False)
            close_range(PRIVATE + 1)
            return 0
        close(writing)
        trouble = read(reading, MAX_TEXT)
        close(reading)
        if trouble:
            os.write(PRIVATE, TROUBLE + trouble)
            os._exit(1)
        say_running()
        return child


def say_running() -> None:
    """Tell the helper, and hand it the scratch space to look at: how full it is, only its mount can tell."""
    scratch = open_file("/tmp", O_PATH | O_DIRECTORY)
    private = socket(AF_UNIX, SOCK_SEQPACKET, 0, PRIVATE)
    send(private, RUNNING, (scratch,))
    private.detach()
    close(scratch)


def enter() -> None:
    """What the second process does not inherit from the first."""
    setsid()
    prctl(PR_SET_DUMPABLE, 1)


def tend(child: int) -> None:
    """Reap whatever ends; when `child` does, say how, and end everything by ending.

    A program of our own does that with a hundredth of this process's memory, where there is one.
    """
    try:
        execve(FIRST, [bytes([child])], {})
    except (OSError, ValueError):  # there is none for this machine, or the number is no byte
        close_range(0, PERMITS)
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # from inside: a Python handler would be run, the default not
    while True:
        pid, status = os.wait()
        if pid == child:
            os.write(PRIVATE, STATUS + WAIT_STATUS.pack(status))
            os._exit(0)


def occupy(control: int) -> socket:
    """The control socket as descriptor 3, /dev/null below it, at 4 and at 5: what is received comes above."""
    os.dup2(control, PRIVATE + 1, False)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(PRIVATE + 1, CONTROL, True)
    for target in (0, 1, PERMITS, PRIVATE):
        os.dup2(null, target, True)
    close_range(PRIVATE + 1)
    return socket(fileno=CONTROL)


def names(text: bytes) -> tuple[str, ...]:
    """What was joined by NULs."""
    return tuple(os.fsdecode(name) for name in text.split(b"\0") if name)


def load_server(path: str) -> Callable[[int], None]:
    """Import the runtime's server. Raises what importing it raises."""
    spec = importlib.util.spec_from_file_location("__stoker_server__", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    serve: Callable[[int], None] = module.serve
    return serve


def leave_boot(path: str) -> None:
    """As if the interpreter had been started with the server as its program."""
    for name in [name for name in sys.modules if name.split(".")[0] == "stoker"]:
        del sys.modules[name]
    sys.path[:] = [folder for folder in sys.path if folder not in ("", BOOT)]
    if not sys.flags.isolated:
        sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path]
    umount(BOOT)


def main() -> None:
    control = socket(fileno=CONTROL)
    _, _, body = unpack(receive(control)[0])
    parts = unpack_parts(body)
    path = os.fsdecode(parts[1])
    try:
        serve = load_server(path)
        with open(os.path.join(BOOT, MOUNTS), "rb") as file:
            zygote = Zygote(control, parts, file.read(), is_forked=True)
        leave_boot(path)
        zygote.settle()
    except (OSError, ImportError, AttributeError, SyntaxError) as error:
        text = f"{type(error).__name__}: {error}"
        send(control, pack(BROKEN, 0, text.encode()[:MAX_TEXT]))
        sys.exit(1)
    zygote.serve()
    serve(CHANNEL)
