"""A fresh process for each call, forked from this one after the function was loaded.

Theory. The server runs no function code once it serves: it reads calls, hands each to a process that
was forked ahead, and relays. An answer is passed on under the number that the server knows, if it is
an answer at all; what is written becomes LOG frames, always before the answer. A process that ends
without one becomes EXITED. It leads a session and group of its own, killed when the process has ended,
so that what it started ends with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import sys
import time
from functools import partial

from . import leaving, spending
from .channel import (
    CALL,
    CANCEL,
    CHUNK,
    ERROR,
    EXITED,
    HEADER,
    LOG,
    RESULT,
    Channel,
    write_error,
    write_frame,
)
from .child import Child, fork
from .function import Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable

_EXIT = struct.Struct("!iiQ")
_SLACK = 1024 * 1024  # what an answer may be longer than the largest result; as on the node's side
_MOST_DRAINS = 16  # a pipe holds one chunk, or 16 if the function made it as large as it may
_QUIET_MS = 2  # how long nothing happens before the next process is forked ahead


def serve_calls(channel: Channel, function: Function) -> None:
    # What is there now never goes away: the collector need not touch, and so copy, its pages.
    gc.collect()
    gc.freeze()
    server = _Server(channel, function)
    try:
        server.serve()
    finally:
        server.kill_all()


class _Server:
    def __init__(self, channel: Channel, function: Function) -> None:
        self._channel = channel
        self._function = function
        self._spare: Child | None = None
        self._has_time = False
        self._looks_at = 0.0
        self._children: dict[int, Child] = {}
        self._calls: dict[int, Child] = {}
        self._actions: dict[int, Callable[[], object]] = {}
        self._poll = select.poll()
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._watch(channel.fd, self._read_channel)
        self._watch(self._wake, self._reap)

    def serve(self) -> None:
        self._take_frames()  # those that came together with LOAD
        while True:
            happened = self._poll.poll(self._patience_ms())
            for fd, _ in happened:
                if fd in self._actions:  # an earlier one may have closed it
                    self._actions[fd]()
            # Ahead of the next call, but not in the way of this one's answer.
            if self._spare is None and (self._has_time or not happened):
                self._spare = self._fork()
            self._has_time = False
            if self._function.cpu_ms and self._calls:
                self._end_spenders()

    def _patience_ms(self) -> int | None:
        """How long nothing may happen before there is something to do."""
        if self._spare is None:
            return _QUIET_MS
        return spending.LOOK_MS if self._function.cpu_ms and self._calls else None

    def _end_spenders(self) -> None:
        """End the calls that have used their processor time."""
        now = time.monotonic()
        if now < self._looks_at:
            return
        self._looks_at = now + spending.LOOK_MS / 1000
        used_ns = spending.by_session()
        for child in self._calls.values():
            spent_ns = used_ns.get(child.pid, 0)
            if spent_ns >= self._function.cpu_ms * 1_000_000:
                child.spent_ns = spent_ns
                child.kill()

    def kill_all(self) -> None:
        for child in self._children.values():
            child.kill()

    def _watch(self, fd: int, action: Callable[[], object]) -> None:
        self._actions[fd] = action
        self._poll.register(fd, select.POLLIN)

    def _close(self, fd: int) -> None:
        del self._actions[fd]
        self._poll.unregister(fd)
        os.close(fd)

    # From the node

    def _read_channel(self) -> None:
        self._channel.fill()
        self._take_frames()

    def _take_frames(self) -> None:
        frame = self._channel.take()
        while frame is not None:
            kind, number, payload = frame
            if kind == CALL:
                self._begin(number, payload)
            elif kind == CANCEL:
                self._cancel(number)
            else:
                sys.exit(leaving.PROTOCOL_ERROR)
            frame = self._channel.take()

    def _begin(self, number: int, payload: bytes) -> None:
        child, self._spare = self._spare or self._fork(), None
        if child is None:
            problem = "no process could be made for this call: there are too many, or no memory"
            self._channel.send(write_error(number, 0, 0, ("OutOfProcesses", problem, "")))
        else:
            self._calls[number] = child
            child.order(number, payload)

    def _cancel(self, number: int) -> None:
        if number in self._calls:
            self._calls[number].is_cancelled = True
            self._calls[number].kill()

    def _fork(self) -> Child | None:
        try:
            child = fork(self._function, self._actions)
        except OSError:
            return None
        self._children[child.pid] = child
        self._watch(child.answer, partial(self._read_answer, child))
        for stream, fd in child.output.items():
            self._watch(fd, partial(self._relay, child, stream))
        return child

    # What comes from a call

    def _relay(self, child: Child, stream: int) -> bool:
        """Pass on what is in the pipe; whether there was anything."""
        data = self._read(child, child.output[stream])
        if data:
            self._channel.send(write_frame(LOG, child.number, bytes((stream,)) + data))
        return bool(data)

    def _read(self, child: Child, fd: int) -> bytes:
        """What a call's pipe holds; closes it at its end."""
        if fd not in child.unread:
            return b""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            child.unread.discard(fd)
            self._close(fd)
        return data

    def _read_answer(self, child: Child) -> bool:
        """Take what is in the pipe; whether there was anything."""
        data = self._read(child, child.answer)
        child.received += data
        if data:
            self._check_answer(child)
        return bool(data)

    def _check_answer(self, child: Child) -> None:
        received = child.received
        if child.is_settled or len(received) < HEADER.size:
            return
        length, kind, _ = HEADER.unpack_from(received)
        if kind not in (RESULT, ERROR) or length > self._function.result_bytes + _SLACK:
            child.kill()
        elif len(received) >= HEADER.size + length:
            self._settle(child, write_frame(kind, child.number, bytes(received[9 : 9 + length])))

    # A call's end

    def _settle(self, child: Child, frame: bytes) -> None:
        """Say the call's end, behind what it has written."""
        child.is_settled = self._has_time = True
        del self._calls[child.number]
        for stream in child.output:
            drains = 0
            while drains < _MOST_DRAINS and self._relay(child, stream):
                drains += 1
        self._channel.send(frame)
        self._let_go(child)

    def _let_go(self, child: Child) -> None:
        while child.unread:
            self._close(child.unread.pop())

    def _reap(self) -> None:
        os.read(self._wake, CHUNK)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._bury(ended.si_pid)

    def _bury(self, pid: int) -> None:
        child = self._children.pop(pid, None)
        if child is None:  # an orphan, or something the function started while it was imported
            os.waitpid(pid, 0)
            return
        child.kill()
        _, status, used = os.wait4(pid, 0)
        if child is self._spare:
            self._spare = None
            child.close_order()
            self._let_go(child)
            return
        while not child.is_settled and self._read_answer(child):
            """It may have ended right behind its answer."""
        if not child.is_settled:
            self._settle(child, self._write_ending(child, status, used.ru_utime + used.ru_stime))

    def _write_ending(self, child: Child, status: int, cpu_s: float) -> bytes:
        if child.is_cancelled:
            return write_error(child.number, 0, int(cpu_s * 1e9), ("Cancelled", "the caller has left", ""))
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1
        return write_frame(EXITED, child.number, _EXIT.pack(code, by, max(int(cpu_s * 1e9), child.spent_ns)))
