"""A zygote as the helper sees it: started at the first need, anew when gone."""

from __future__ import annotations

import _socket
import errno
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from stoker.linux import syscalls
from stoker.linux.processes import heed_all_signals, take_name
from stoker.linux.syscalls import pidfd_open
from stoker.sandboxes.lean import packets
from stoker.sandboxes.lean.inside import walls, zygote
from stoker.sandboxes.lean.inside.walls import MASKED, PRIVATE
from stoker.sandboxes.lean.inside.zygote import BOOT, MOUNTS, START, Zygote, occupy
from stoker.sandboxes.lean.packets import (
    BROKEN,
    FORK,
    FORK_BODY,
    FORKED,
    FORKED_BODY,
    MAX_TEXT,
    REFUSED,
    SETUP,
    UP,
    Fork,
    pack,
    pack_parts,
    receive,
    send,
    unpack,
)
from stoker.sandboxes.lean.privileged.loop import Loop
from stoker.sandboxes.lean.privileged.root import enter_root

SHIPPED = (syscalls, packets, walls, zygote)
VICTIM = "500"  # oom_score_adj: when the machine is out of memory, a sandbox goes before node and helper do
AT_ONCE = 8  # orders under way: many more would fill the socket both ways, and both ends wait for ever


class Start(NamedTuple):
    """A launch as the helper is told it when it starts."""

    name: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    shows: tuple[tuple[str, str], ...]
    fork: str | None
    is_root: bool
    """The helper is root of the machine."""
    name_server: str
    """Its address, for sandboxes that have a network; empty: there is none."""


class Owner(Protocol):
    """Who gave the orders. Exactly one of the first two comes for each, perhaps before `order` returns."""

    def forked(self, number: int, pid: int, pidfd: int) -> None: ...
    def refused(self, number: int, text: str, may_succeed: bool = False) -> None:
        """It may be no fault of the order's, and come right another time."""

    def zygote_ended(self) -> None:
        """A zygote may have forked what it could not tell any more: a child of ours that nobody knows."""


class Nursery:
    """A zygote, and the orders that wait for it. Each that is started has a lineage of its own."""

    def __init__(
        self,
        start: Start,
        filters: tuple[bytes, ...],
        loop: Loop,
        owner: Owner,
        lineages: Iterator[int],
        on_change: Callable[[Nursery], None],
    ) -> None:
        """`on_change` is called when it is up, and when it has ended."""
        self._start = start
        masked = joined(name for name in MASKED if os.path.exists(f"/proc/{name}"))
        has_time = b"1" if os.path.exists("/proc/self/ns/time_for_children") else b""
        self._setup = [masked, os.fsencode(start.fork or ""), has_time, *filters]
        self._loop = loop
        self._owner = owner
        self._lineages = lineages
        self._on_change = on_change
        self._waiting: deque[tuple[int, bytes, tuple[int, ...]]] = deque()
        self._under_way: set[int] = set()
        self._control: socket.socket | None = None
        self.pid = 0
        self.lineage = 0
        self.is_up = False
        self._is_over = False
        self._pidfd = -1
        self.trouble = ""

    def __repr__(self) -> str:
        state = "up" if self.is_up else "starting" if self._control else "not started"
        return f"<Nursery {self._start.name} {state}, {len(self._under_way)}+{len(self._waiting)} orders>"

    def order(self, number: int, fork: Fork, descriptors: tuple[int, ...]) -> int:
        """Have a sandbox forked, of the lineage returned. The descriptors are ours from here on."""
        self._waiting.append((number, pack(FORK, number, FORK_BODY.pack(*fork)), descriptors))
        self.start()
        lineage = self.lineage
        self._send_waiting()
        return lineage

    def start(self) -> None:
        """Start the zygote unless there is one. Returns at once."""
        if self._control is not None:
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.pid = os.fork()
        except OSError as error:
            self.trouble = str(error)
            self._refuse_all(self.trouble)
            self._on_change(self)
            return
        if self.pid == 0:
            self._become_zygote(theirs)
        theirs.close()
        self._control, self.is_up, self.trouble = ours, False, ""
        self.lineage = next(self._lineages)
        self._loop.watch(ours.fileno(), self._read)
        if self._start.fork is not None:
            self._send(pack(SETUP, 0, pack_parts(self._setup)))

    def close(self) -> None:
        """End the zygote; orders that are under way are refused."""
        if self._control is not None:
            self._end()
        elif self.pid:
            self._reap()

    def finish(self) -> None:
        """End it when what was ordered has been forked. HOLDS: nothing more is."""
        self._is_over = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._is_over and self._control is not None and not (self._under_way or self._waiting):
            self._kill()
            # Its mounts take up to 20 ms to go, and meanwhile others want sandboxes.
            self._pidfd = pidfd_open(self.pid)
            self._loop.watch(self._pidfd, self._reap)

    def _kill(self) -> None:
        assert self._control is not None
        self._loop.unwatch(self._control.fileno())
        self._control.close()
        self._control = None
        os.kill(self.pid, signal.SIGKILL)  # ours and not yet waited for: no other process has its number

    def _reap(self) -> None:
        """Of one that is over."""
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        os.waitpid(self.pid, 0)
        self.pid, self.is_up = 0, False
        self._on_change(self)

    def _send_waiting(self) -> None:
        while self._waiting and self.is_up and len(self._under_way) < AT_ONCE and self._control:
            number, packet, descriptors = self._waiting.popleft()
            self._under_way.add(number)
            self._send(packet, descriptors)
            close_all(descriptors)

    def _send(self, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
        assert self._control is not None
        try:
            send(self._control, packet, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, perhaps with orders unread, as its socket will tell

    def _read(self) -> None:
        assert self._control is not None
        packet, descriptors = receive(self._control)
        if not packet:
            self._end()
            return
        kind, number, body = unpack(packet)
        self._under_way.discard(number)
        if kind == UP:
            self.is_up = True
            self._on_change(self)
        elif kind == BROKEN:
            self.trouble = body.decode(errors="replace")
        elif kind == FORKED:
            self._forked(number, FORKED_BODY.unpack(body)[0], descriptors)
        elif kind == REFUSED:
            self._owner.refused(number, body.decode(errors="replace"))
        self._send_waiting()
        self._end_if_over()

    def _forked(self, number: int, pid: int, descriptors: list[int]) -> None:
        if descriptors:
            self._owner.forked(number, pid, descriptors[0])
            return
        # The kernel drops what there is no room for. The child is ours, and nobody else will wait for it.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._owner.refused(number, os.strerror(errno.EMFILE))

    def _end(self) -> None:
        self._kill()
        os.waitpid(self.pid, 0)
        may_succeed = self.is_up
        self.pid, self.is_up = 0, False
        if self._under_way:
            self._owner.zygote_ended()
        reason = self.trouble or "it ended; its last words, if any, are in the node's log"
        self.trouble = f"{self._start.name} cannot be started: {reason}"
        self._refuse_all(self.trouble, may_succeed)
        self._on_change(self)

    def _refuse_all(self, text: str, may_succeed: bool = False) -> None:
        lost = [*self._under_way, *(number for number, _, _ in self._waiting)]
        for _, _, descriptors in self._waiting:
            close_all(descriptors)
        self._under_way.clear()
        self._waiting.clear()
        for number in lost:
            self._owner.refused(number, text, may_succeed)

    def _become_zygote(self, control: socket.socket) -> NoReturn:
        """The child's side. Nothing comes back from here: the helper's own code must not run twice."""
        code = 1
        try:
            take_name("stoker-zygote")
            link = occupy(control.detach())
            heed_all_signals()
            try:
                Path("/proc/self/oom_score_adj").write_text(VICTIM)
                boot = [] if self._start.fork is None else shipped()
                mounts = enter_root(
                    self._start.shows, boot, BOOT, self._start.is_root, self._start.name_server
                )
                packed = pack_parts([joined(paths) for paths in mounts])
                if self._start.fork is None:
                    self._serve_here(link, packed)
                else:
                    Path(BOOT, MOUNTS).write_bytes(packed)
                    environment = dict(self._start.environment)
                    os.execve(self._start.argv[0], interpreter_argv(self._start), environment)
            except OSError as error:
                send(link, pack(BROKEN, 0, str(error).encode()[:MAX_TEXT]))
        finally:
            os._exit(code)

    def _serve_here(self, link: _socket.socket, mounts: bytes) -> NoReturn:
        zygote = Zygote(link, self._setup, mounts, is_forked=False)
        zygote.settle()
        zygote.serve()
        execute(self._start)


def joined(names: Iterable[str]) -> bytes:
    return b"\0".join(map(os.fsencode, names))


def close_all(descriptors: tuple[int, ...] | list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def shipped() -> list[tuple[str, str]]:
    """The files that a zygote needs of us, as a tree without `__init__.py`s, which would import more."""
    files = []
    for module in SHIPPED:
        assert module.__file__ is not None
        files.append((module.__name__.replace(".", "/") + ".py", Path(module.__file__).read_text()))
    return files


def interpreter_argv(start: Start) -> list[str]:
    """The launch's interpreter and its options, with our start in the place of the server's file."""
    argv = list(start.argv)
    options = argv[: argv.index(start.fork)] if start.fork in argv else [argv[0], "-I"]
    return [*options, "-c", START]


def execute(start: Start) -> NoReturn:
    """Become the program of the launch, or say why not and end."""
    heed_all_signals()
    try:
        os.execve(start.argv[0], start.argv, dict(start.environment))
    except (OSError, ValueError) as error:
        os.write(PRIVATE, f"{start.argv[0]} cannot be executed: {error}".encode()[:MAX_TEXT])
    os._exit(127)
