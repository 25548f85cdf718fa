"""The guardian: forks the helper, waits for it, and forks a new one when it has died.

Theory. The node has given root up and can start no helper; so the process that it did start, while it
still was root, stays behind the helper and does nothing but this. It holds the same end of the socket as
the helper, so the node's link outlives a helper, and what the node says meanwhile is read by the next one.

Whatever loses its parent by the helper's death becomes the guardian's child, and is ended before there is
a new helper: two lives never overlap. Should the guardian be the one that dies, the helper ends as if the
node had, and the node stops. Should both die, each sandbox ends by its PR_SET_PDEATHSIG; what remains is
empty groups, which the next start removes.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from stoker.linux.processes import become_reaper, describe, end_children, take_name
from stoker.sandboxes.lean.packets import FAILED, LOST, MAX_TEXT, NUMBERS_OF_A_LIFE, pack, send

DEATHS, WITHIN_S = 5, 10.0  # so many in so short a time, and the fault is not going to pass
PATIENCE_S = 5.0  # for what has been killed to be gone; one that waits for a dead disk may take for ever
PREDECESSOR_S = 10.0  # a helper whose node has gone needs this long at most for its cleaning

Live = Callable[[int], None]
"""One life of the helper; the numbers that the node speaks of in it begin with the one given."""
Sweep = Callable[[], None]
"""Removes what a helper that died has left. Raises `OSError` that says what cannot be removed."""


def guard(link: socket.socket, live: Live, sweep: Sweep) -> None:
    """Let there be a helper until one has done its work, or until it is no use: then sweep, and say why."""
    take_name("stoker-guardian")
    become_reaper()
    deaths: deque[float] = deque(maxlen=DEATHS)
    first = 0
    while (status := _wait(_fork(live, first))) != 0:
        deaths.append(time.monotonic())
        left = end_children(PATIENCE_S)
        if left:
            _say(link, FAILED, 0, f"the sandbox helper ended, and {', '.join(map(describe, left))} does not")
            return
        if len(deaths) == DEATHS and deaths[-1] - deaths[0] < WITHIN_S:
            text = (
                f"the sandbox helper ended {DEATHS} times within {WITHIN_S:g} s, the last time {_how(status)}"
            )
            _say(link, FAILED, 0, text)
            sweep()
            return
        first += NUMBERS_OF_A_LIFE
        _say(link, LOST, first, _how(status))


def _fork(live: Live, first: int) -> int:
    pid = os.fork()
    if pid == 0:
        _be_helper(live, first)
    return pid


def _be_helper(live: Live, first: int) -> NoReturn:
    code = 1
    try:
        take_name("stoker-helper")
        live(first)
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def _wait(pid: int) -> int:
    """The exit code of the helper, as `os.waitstatus_to_exitcode` has it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def _say(link: socket.socket, kind: int, number: int, text: str) -> None:
    try:
        send(link, pack(kind, number, text.encode()[:MAX_TEXT]))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the node has gone: the next helper finds that out, cleans, and has done its work


def succeed(node_id: str) -> socket.socket:
    """Be the one helper of this node on this machine: wait for an earlier one to finish its cleaning."""
    name = f"\0stoker-{node_id}"
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        try:
            mine.bind(name)
            mine.listen()
            return mine
        except OSError:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                other.settimeout(PREDECESSOR_S)
                try:
                    other.connect(name)
                    other.recv(1)  # never a byte: it ends when the other does
                except TimeoutError:
                    raise
                except OSError:
                    pass
