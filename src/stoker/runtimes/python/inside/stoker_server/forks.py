"""A fresh process for each call, forked from this one after the function was loaded.

Theory. The server runs no function code once it serves: it reads calls, forks, and relays. A call's
process has no way to the channel; it hands its one answer to the server through a pipe of its own,
which is checked and passed on under the number the server knows. Descriptors 1 and 2 are pipes too,
relayed as LOG frames. A process that ends without an answer becomes EXITED. It leads a session and
group of its own, killed when the process has ended, so that what it started ends with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import sys
from functools import partial

from . import leaving, streams
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
from .function import Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable

_EXIT = struct.Struct("!iiQ")
_SLACK = 1024 * 1024  # what an answer may be longer than the largest result; as on the node's side
_MOST_DRAINS = 16  # a pipe holds one chunk, or 16 if the function made it as large as it may


def serve_calls(channel: Channel, function: Function) -> None:
    # What is there now never goes away: the collector need not touch, and so copy, its pages.
    gc.collect()
    gc.freeze()
    server = _Server(channel, function)
    try:
        server.serve()
    finally:
        server.kill_all()


class _Process:
    """One call's process, seen from the server."""

    def __init__(self, number: int, pid: int, answer: int, output: dict[int, int]) -> None:
        self.number = number
        self.pid = pid
        self.answer = answer
        self.output = output
        self.received = bytearray()
        self.is_settled = False
        self.is_cancelled = False

    def kill(self) -> None:
        for kill in (os.kill, os.killpg):
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # not its own group yet
                pass


class _Server:
    def __init__(self, channel: Channel, function: Function) -> None:
        self._channel = channel
        self._function = function
        self._processes: dict[int, _Process] = {}
        self._calls: dict[int, _Process] = {}
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
            for fd, _ in self._poll.poll():
                if fd in self._actions:  # an earlier one may have closed it
                    self._actions[fd]()

    def kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()

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
                self._start(number, payload)
            elif kind == CANCEL:
                self._cancel(number)
            else:
                sys.exit(leaving.PROTOCOL_ERROR)
            frame = self._channel.take()

    def _cancel(self, number: int) -> None:
        if number in self._calls:
            self._calls[number].is_cancelled = True
            self._calls[number].kill()

    # A call's beginning

    def _start(self, number: int, payload: bytes) -> None:
        pipes: list[tuple[int, int]] = []
        try:
            pipes.extend(os.pipe2(os.O_CLOEXEC) for _ in range(3))
            pid = os.fork()
        except OSError as error:
            problem = f"no process could be made for this call: {error.strerror}"
            self._channel.send(write_error(number, 0, 0, ("OutOfProcesses", problem, "")))
            for fd in (fd for pipe in pipes for fd in pipe):
                os.close(fd)
            return
        if pid == 0:
            self._run_call(number, payload, *(write for _, write in pipes))
        for read, write in pipes:
            os.close(write)
            os.set_blocking(read, False)
        answer, stdout, stderr = (read for read, _ in pipes)
        self._adopt(_Process(number, pid, answer, {1: stdout, 2: stderr}))

    def _adopt(self, process: _Process) -> None:
        self._processes[process.pid] = self._calls[process.number] = process
        self._watch(process.answer, partial(self._read_answer, process))
        for stream in process.output:
            self._watch(process.output[stream], partial(self._relay, process, stream))

    def _run_call(self, number: int, payload: bytes, answer: int, stdout: int, stderr: int) -> None:
        """The life of the call's own process; never returns."""
        with leaving.process_ends():
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in self._actions:  # the channel and what belongs to other calls
                os.close(fd)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.close(stdout)
            os.close(stderr)
            _refresh_randomness()
            frame = self._function.answer(number, payload)
            streams.flush()
            Channel(answer).send(frame)
            os._exit(0)

    # What comes from a call

    def _relay(self, process: _Process, stream: int) -> bool:
        """Pass on what is in the pipe; whether there was anything."""
        data = self._read(process.output[stream])
        if data:
            self._channel.send(write_frame(LOG, process.number, bytes((stream,)) + data))
        return bool(data)

    def _read(self, fd: int) -> bytes:
        """What a call's pipe holds; closes it at its end."""
        if fd not in self._actions:
            return b""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._close(fd)
        return data

    def _read_answer(self, process: _Process) -> bool:
        """Take what is in the pipe; whether there was anything."""
        data = self._read(process.answer)
        process.received += data
        if data:
            self._check_answer(process)
        return bool(data)

    def _check_answer(self, process: _Process) -> None:
        received = process.received
        if process.is_settled or len(received) < HEADER.size:
            return
        length, kind, _ = HEADER.unpack_from(received)
        if kind not in (RESULT, ERROR) or length > self._function.result_bytes + _SLACK:
            process.kill()
        elif len(received) >= HEADER.size + length:
            self._settle(process, write_frame(kind, process.number, bytes(received[9 : 9 + length])))

    # A call's end

    def _settle(self, process: _Process, frame: bytes) -> None:
        """Say the call's end, behind what it has written."""
        process.is_settled = True
        del self._calls[process.number]
        for stream in process.output:
            drains = 0
            while drains < _MOST_DRAINS and self._relay(process, stream):
                drains += 1
        self._channel.send(frame)
        for fd in (process.answer, *process.output.values()):
            if fd in self._actions:
                self._close(fd)

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
        process = self._processes.pop(pid, None)
        if process is None:  # an orphan, or something the function started while it was imported
            os.waitpid(pid, 0)
            return
        # HOLDS: before it is reaped; afterwards the number may be another process's.
        process.kill()
        _, status, used = os.wait4(pid, 0)
        while not process.is_settled and self._read_answer(process):
            """It may have ended right behind its answer."""
        if not process.is_settled:
            self._settle(process, self._write_ending(process, status, used.ru_utime + used.ru_stime))

    def _write_ending(self, process: _Process, status: int, cpu_s: float) -> bytes:
        if process.is_cancelled:
            return write_error(process.number, 0, int(cpu_s * 1e9), ("Cancelled", "the caller has left", ""))
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1
        return write_frame(EXITED, process.number, _EXIT.pack(code, by, int(cpu_s * 1e9)))


def _refresh_randomness() -> None:
    """Calls must not draw the same numbers; `random` sees to itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
