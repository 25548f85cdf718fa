"""`stop`: ends the node that holds a file, and never a stranger.

The pid comes from the kernel, by the lock on the file. It is turned into a pidfd, and the lock is
asked once more: if the same process still holds the file, the pidfd is that node's, whatever happens
to the number later.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from stoker.cli.exits import REFUSED, UNREACHABLE, Failure
from stoker.cli.lifetime.locks import Holder, holder

STOP_S = 45.0  # a node lets calls inside go on for 20 s, then closes its rooms
END_S = 5.0  # for the kernel to collect a killed process
TELL_EVERY_S = 5.0

Say = Callable[[str], None]


def running(path: Path) -> Holder | None:
    """The node that holds this file. Raises `Failure` if that cannot be told."""
    try:
        return holder(path)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", REFUSED) from None


def pid_in(path: Path) -> str:
    """What the file says, for a message; empty if there is none."""
    try:
        return path.read_text("utf-8", "replace").strip()[:20]
    except OSError:
        return ""


def stop(path: Path, say: Say) -> None:
    """End the node that holds `path`. Raises `Failure` when nobody does, or when it may not be ended."""
    live = running(path)
    if live is None:
        raise Failure(_why_nobody(path), UNREACHABLE)
    process = _open(path, live)
    try:
        _stop(process, live, say)
    finally:
        os.close(process)


def stop_daemon(path: Path, say: Say) -> None:
    """The same for a `daemon.pid`, which is removed."""
    stop(path, say)
    if running(path) is None:
        path.unlink(missing_ok=True)


def _why_nobody(path: Path) -> str:
    if not path.exists():
        return f"no {path.name} in {path.parent}: no node was started there with `start -d`"
    return (
        f"{path} is stale: process {pid_in(path) or '?'} is gone, or is no node; nothing was stopped. "
        "Remove the file; the next `start -d` replaces it"
    )


def _open(path: Path, live: Holder) -> int:
    try:
        process = os.pidfd_open(live.pid)
    except OSError:
        process = -1
    if process < 0 or running(path) != live:
        if process >= 0:
            os.close(process)
        raise Failure(f"the node that held {path} has just ended, or lives in another container", UNREACHABLE)
    return process


def _stop(process: int, live: Holder, say: Say) -> None:
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except PermissionError:
        raise Failure(f"process {live.pid} belongs to another user; stop it as that user", REFUSED) from None
    except ProcessLookupError:
        return
    began = time.monotonic()
    while wait(TELL_EVERY_S, process) is None:
        waited = time.monotonic() - began
        if waited >= STOP_S:
            break
        say(f"process {live.pid} lets the calls inside end ({waited:.0f} of at most {STOP_S:.0f} s)")
    else:
        say(f"stopped (process {live.pid}, port {live.mark})")
        return
    end(process, 0)
    say(f"killed: process {live.pid} had not ended after {STOP_S:.0f} s; its next start cleans up after it")


def wait(seconds: float, *fds: int) -> int | None:
    """The first descriptor to become readable."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(seconds * 1000)}
    return next((fd for fd in fds if fd in ready), None)


def end(process: int, patience_s: float) -> bool:
    """End a process politely, then not; whether the polite way was enough."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if wait(patience_s, process) is None:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            wait(END_S, process)
            return False
    return True
