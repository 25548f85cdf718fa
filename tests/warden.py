"""Runs a test command as its only child's ancestor, and fails when anything of it outlives it.

Usage: python tests/warden.py -m pytest …

Whatever the tests start, however it detaches itself, stays a descendant of this process: it is the
subreaper of them all. It reaps what is orphaned, as the machine's first process would, so that a
daemon that ends is gone at once. What still lives two seconds after the tests have ended was left
behind: it is named, killed, and the run has failed.

The same goes for whatever carries the mark of the run (see `leaks`): temporary files are made in a
folder of this run, whose name is one mark, and `leaks.watch` tells us the others. What tests leave in
that folder is found by looking into it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import leaks

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 2.0
MARKS = "marks"


def main(arguments: list[str]) -> int:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp(prefix="stoker-run-"))
    folder.chmod(0o755)  # a node that root starts becomes somebody else, who has to reach its home
    forwarding = leaks.forwarding()
    tests = os.fork()  # not posix_spawn, after which a program ignores a signal of the library's own
    if tests == 0:
        own = {"TMPDIR": str(folder), leaks.WATCHED: str(folder / MARKS)}
        os.execve(sys.executable, [sys.executable, *arguments], os.environ | own)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _pass_on(tests, number))
    code = _reap_until(tests)
    left = [f"process {pid}: {_command(pid)}" for pid in _still_alive()]
    _kill_all()
    left += [
        *_in(folder),
        *leaks.left(leaks.watched(folder / MARKS)),
        *leaks.switched_on(forwarding, leaks.forwarding()),
    ]
    leaks.remove(folder)
    left += [thing for thing in leaks.left([folder.name]) if thing not in left]
    for thing in left:
        print(f"left behind: {thing}", file=sys.stderr)
    return code or (1 if left else 0)


def _in(folder: Path) -> list[str]:
    """What tests made there and did not remove."""
    return [f"file {path}" for path in folder.iterdir() if not path.name.startswith((MARKS, "pytest-of-"))]


def _pass_on(pid: int, number: int) -> None:
    if number != signal.SIGINT:  # a terminal's Ctrl-C has reached the tests already
        os.kill(pid, number)


def _reap_until(tests: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == tests:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _still_alive() -> list[int]:
    give_up = time.monotonic() + PATIENCE_S
    while (alive := _children()) and time.monotonic() < give_up:
        threading.Event().wait(0.05)
    return alive


def _children() -> list[int]:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


def _kill_all() -> None:
    """Ends what is left, and what is orphaned by that."""
    while alive := _children():
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        threading.Event().wait(0.02)


def _command(pid: int) -> str:
    text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return text[:200] or Path(f"/proc/{pid}/comm").read_text().strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
