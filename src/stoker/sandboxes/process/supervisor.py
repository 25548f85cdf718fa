"""The processes beside the node: one keeper, and forked from it one supervisor for each sandbox.

Theory. A sandbox's program is a stranger that may fork, call `setsid` and leave its group. Only its
reaper is sure to find what it has left, so every sandbox has a reaper of its own, the supervisor. It
starts the program, watches its memory, tells the node how it ended, and ends when nothing of the
sandbox is left; it does so as well when the node's end of its socket closes, however the node ended.
Supervisors are forked from the keeper, because starting an interpreter for each takes ten times longer.

A program that kills its own supervisor (they are the same user) gets out of sight; there are no walls
here. The node then removes what it finds by the name of the scratch folder in its environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from stoker.linux import family
from stoker.linux.processes import heed_all_signals
from stoker.linux.removal import remove
from stoker.linux.syscalls import close_range, prctl

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MAX_ORDER, MAX_DESCRIPTORS = 1024 * 1024, 8
BUSY_TICK_MS, IDLE_TICK_MS = 20, 200
CANNOT_START = 127
DATA_ALLOWANCE = 128 * 1024 * 1024  # threads' stacks count as data, whether touched or not


def keep(link: socket.socket) -> None:
    """Fork a supervisor for each order, until the node closes the link."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are waited for by nobody
    while True:
        order, descriptors, _, _ = socket.recv_fds(link, MAX_ORDER, MAX_DESCRIPTORS)
        if not order:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # `recv_fds` leaves them open to be inherited
        if os.fork() == 0:
            link.close()
            _supervise(json.loads(order), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(order: dict[str, Any], descriptors: list[int]) -> NoReturn:
    try:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptors[0])
        Supervisor(order, control).run(descriptors[1:])
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


class Supervisor:
    """One sandbox from beside."""

    def __init__(self, order: dict[str, Any], control: socket.socket) -> None:
        self._order = order
        self._control = control
        self._memory_bytes: int = order["memory_bytes"]
        self._main = 0
        self._pidfd = -1
        self._oom_kills = 0
        self._is_main_oom = False
        self._peak_bytes = 0

    def run(self, descriptors: list[int]) -> None:
        """The whole life of one sandbox."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        problem = self._start(descriptors)
        if problem:
            self._tell(failed=problem)
        else:
            self._tell(started=self._main, supervisor=os.getpid())
            self._watch()
            self._end()
        with suppress(OSError):
            remove(*os.path.split(self._order["scratch"]))
        self._tell(gone=True)

    def _tell(self, **message: object) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            """The node has gone, or does not listen any more."""

    # The beginning

    def _start(self, descriptors: list[int]) -> str:
        """Fork the program; what went wrong, or nothing."""
        said, saying = os.pipe()
        supervisor = os.getpid()
        try:
            self._main = os.fork()
        except OSError as error:
            return f"no process could be made: {error.strerror}"
        if self._main == 0:
            _become_program(self._order, descriptors, saying, supervisor)
        self._pidfd = os.pidfd_open(self._main)
        for descriptor in (*descriptors, saying):
            os.close(descriptor)
        with open(said) as file:
            return file.read()

    # The middle

    def _watch(self) -> None:
        """Return when the program has ended, or is to be ended."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        tick_ms, last = BUSY_TICK_MS, (0.0, 0)
        while not poll.poll(tick_ms):
            now = self._look()
            tick_ms, last = (IDLE_TICK_MS if now == last else BUSY_TICK_MS), now

    def _look(self) -> tuple[float, int]:
        """Kill the largest if all together hold too much; what they use now."""
        pids = family.list_family()
        used = [family.measure(pid) for pid in pids]
        resident = sum(memory for _, memory in used)
        self._peak_bytes = max([self._peak_bytes, *(memory for _, memory in used)])
        if resident > self._memory_bytes:
            largest = family.find_excess(pids, self._memory_bytes)
            if largest is not None:
                self._kill_for_memory(largest)
        return sum(cpu for cpu, _ in used), resident

    def _kill_for_memory(self, pid: int) -> None:
        self._oom_kills += 1
        self._is_main_oom = self._is_main_oom or pid == self._main
        # Told before it is done: who hears of the death can ask for its reason.
        self._tell(oom_kills=self._oom_kills)
        family.kill(pid)

    # The end

    def _end(self) -> None:
        if select.select([self._control], [], [], 0)[0]:
            family.kill(self._main)
        ended = os.waitid(os.P_PID, self._main, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        family.kill_family()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        has_exited = ended.si_code == os.CLD_EXITED
        self._tell(
            ended={
                "exit_code": ended.si_status if has_exited else None,
                "signal": None if has_exited else ended.si_status,
                "out_of_memory": self._is_main_oom,
                "cpu_ms": (used.ru_utime + used.ru_stime) * 1000,
                "peak_bytes": max(used.ru_maxrss * 1024, self._peak_bytes),
            }
        )


def _become_program(order: dict[str, Any], descriptors: list[int], saying: int, supervisor: int) -> NoReturn:
    """Turn this process into the sandbox's program; never returns."""
    saying = fcntl.fcntl(saying, fcntl.F_DUPFD_CLOEXEC, 32)
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(CANNOT_START)  # it was killed before we asked to be told
        _arrange_descriptors(descriptors)
        heed_all_signals()
        os.chdir(order["scratch"])
        _set_limits(order)
        os.execve(order["argv"][0], order["argv"], order["environment"])
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) else repr(error)
        os.write(saying, f"cannot start {order['argv'][0]!r}: {reason}".encode())
        raise
    finally:
        os._exit(CANNOT_START)


def _arrange_descriptors(descriptors: list[int]) -> None:
    """0 is /dev/null; then 1, 2, 3 and so on as given. Everything else closes on exec."""
    out_of_the_way = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 32) for each in descriptors]
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    for place, descriptor in enumerate(out_of_the_way, start=1):
        os.dup2(descriptor, place)


def _set_limits(order: dict[str, Any]) -> None:
    data = order["memory_bytes"] + DATA_ALLOWANCE
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, order["descriptors"]),
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_FSIZE, order["file_bytes"]),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """The keeper, as a program: its last argument is the descriptor of its link to the node."""
    link = int(sys.argv[-1])
    os.set_inheritable(link, False)
    # Who started us may have left more open than was asked of it: uvloop keeps copies of our 0, 1 and 2.
    os.closerange(3, link)
    close_range(link + 1)
    keep(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=link))
    sys.exit(0)
