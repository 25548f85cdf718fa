"""`start -d`: a node in the background, with `daemon.pid` and `daemon.log` where it was started.

`daemon.pid` holds the pid alone, as other programs expect, and the daemon holds the file (see
`locks`): whether it runs, and as which process on which port, is the kernel's word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stoker.cli.exits import NODE, OK, Failure, code_of
from stoker.cli.lifetime import serving
from stoker.cli.lifetime.locks import Held, Lock
from stoker.cli.lifetime.stopping import end, pid_in, running, wait
from stoker.errors import NodeError
from stoker.settings import Settings

PID_FILE = "daemon.pid"
LOG_FILE = "daemon.log"
START_S = 60.0
END_S = 5.0
SHOWN_LINES = 15  # of the log, when a start failed
READY = b"ready"
log = logging.getLogger(__name__)


def check_free(folder: Path, say: Callable[[str], None]) -> None:
    """Raises `Failure` while a daemon of this folder runs; says so when the file is stale."""
    live = running(folder / PID_FILE)
    if live is not None:
        raise Failure(
            f"a node runs from here already (process {live.pid}, port {live.mark}); `stoker stop` ends it",
            NODE,
        )
    old = pid_in(folder / PID_FILE)
    if old:
        say(f"{PID_FILE} is stale (process {old} is gone or is no node); it is replaced")


def start(settings: Settings, listening: socket.socket, folder: Path, say: Callable[[str], None]) -> int:
    """Fork the daemon; 0 once it answers, else what it ended with, its last words shown."""
    into = _open_log(folder / LOG_FILE)
    began = os.fstat(into).st_size
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _live(settings, listening, folder, into, tell)
    os.close(tell)
    greeting = serving.greeting(settings, listening)
    listening.close()
    code = _fate(pid, told)
    if code is None:
        say(f"{greeting}\nprocess {pid}, log in {LOG_FILE}; `stoker stop` ends it")
        return OK
    say(f"{_last_lines(into, began)}\nthe node did not start: it ended with code {code}; see {LOG_FILE}")
    return code or NODE


def _open_log(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}", NODE) from None


def _live(settings: Settings, listening: socket.socket, folder: Path, into: int, tell: int) -> NoReturn:
    """The daemon's whole life."""
    code = NODE
    try:
        os.setsid()
        _redirect(into)
        lock = Lock(folder / PID_FILE, serving.port_of(listening))
        lock.write(f"{os.getpid()}\n")
        try:
            code = serving.serve(settings, listening, lambda: _answers(settings, listening, tell))
            log.info("stopped")
        finally:
            lock.remove()
    except NodeError as error:
        code = code_of(error)
        print(f"stoker: {error.message}", file=sys.stderr, flush=True)
    except (Held, OSError) as error:
        print(f"stoker: {PID_FILE}: {error}", file=sys.stderr, flush=True)
    except SystemExit as ending:  # told to stop while it started
        code = ending.code if isinstance(ending.code, int) else NODE
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)  # what the parent has registered to run at its own exit is none of ours


def _redirect(into: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd, target in ((null, 0), (into, 1), (into, 2)):
        os.dup2(fd, target)
    os.close(null)


def _answers(settings: Settings, listening: socket.socket, tell: int) -> None:
    log.info(serving.greeting(settings, listening).partition("\n")[0])
    with contextlib.suppress(OSError):  # whoever started us may have gone
        os.write(tell, READY)
    os.close(tell)


def _fate(pid: int, told: int) -> int | None:
    """None once the daemon answers, else its exit code."""
    process = os.pidfd_open(pid)
    try:
        if wait(START_S, told, process) == told and os.read(told, len(READY)) == READY:
            return None
        end(process, END_S)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        raise
    finally:
        os.close(process)
        os.close(told)


def _last_lines(into: int, began: int) -> str:
    size = os.fstat(into).st_size
    start = max(began, size - 64 * 1024)
    return "\n".join(
        os.pread(into, size - start, start).decode("utf-8", "replace").splitlines()[-SHOWN_LINES:]
    )
