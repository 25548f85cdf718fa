"""The server of a sandbox that says what its walls cost: read by a zygote in the place of a runtime's.

A zygote imports its server before it forks the first sandbox. This one puts a clock around the steps of
the walls and around the fork itself, where they are; the sandboxes forked from then on take the times
along, and the second process sends them as JSON, in nanoseconds, in the order in which they were taken.
Nothing of that is in a zygote that imports another server.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from functools import partial

from stoker.sandboxes.lean.inside import walls, zygote

FORK = "fork into new mount, pid, ipc, uts and time namespaces"
taken: dict[str, int] = {}
forked = vars(zygote)["clone3"]


def timed(name: str, step: Callable[..., None], *given: object) -> None:
    began = time.perf_counter_ns()
    step(*given)
    taken[name] = time.perf_counter_ns() - began


def clone3(*given: int) -> tuple[int, int]:
    began = time.perf_counter_ns()
    pid, pidfd = forked(*given)
    if pid == 0:
        taken[FORK] = time.perf_counter_ns() - began
    return pid, pidfd


def serve(channel_fd: int) -> None:
    channel = socket.socket(fileno=channel_fd)
    channel.sendall(json.dumps(taken).encode())
    channel.shutdown(socket.SHUT_WR)
    channel.recv(1)


vars(zygote)["clone3"] = clone3
walls.STEPS = tuple(partial(timed, walls.NAMES[step], step) for step in walls.STEPS)
