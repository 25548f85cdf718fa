"""What a server does while it waits for its function: all that a first call does, with a stand-in.

Theory. After a fork a page is copied when it is first written to, and in Python every object that is looked
at is written to, for its references are counted. Loading and calling even an empty function touches so
many pages of the zygote's that copying them takes longer than the rest. A sandbox that waits without a
function has the time to do it before: from LOAD to the first answer then takes a third.

A zygote rehearses too, once, before any fork: what a first call makes and keeps is then everybody's, and each
sandbox has less of its own.
"""

from __future__ import annotations

import json
import os
import select
import sys

from .channel import LOADED, write_frame
from .function import Function

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "standin")
MODULE = "stoker_standin"
WAIT_MS = 1  # where a function has been asked for already, LOAD is here by then
TIMES = 2  # the first one also fills caches, the second takes the way that is taken later
LOAD = {
    "function": "",
    "memory_mb": 0,
    "result_bytes": 1024,
    "code": FOLDER,
    "handler": MODULE + ".handle",
    "environment": {},
}
CALL = bytes(20) + b'{"a":["b",1]}'


def rehearse_unless_asked(channel_fd: int) -> None:
    """Rehearse, unless the node has said something or says it soon. Leaves no trace but in memory."""
    waiting = select.poll()
    waiting.register(channel_fd, select.POLLIN)
    if waiting.poll(WAIT_MS):
        return
    for _ in range(TIMES):
        rehearse()


def rehearse() -> None:
    """Load and call the stand-in. Leaves no trace but in memory."""
    path, arguments, folder = list(sys.path), sys.argv, os.getcwd()
    known = set(sys.path_importer_cache)
    Function(json.loads(json.dumps(LOAD))).answer(0, CALL)
    write_frame(LOADED, 0, bytes(8))
    sys.path[:], sys.argv = path, arguments
    os.chdir(folder)
    del sys.modules[MODULE]
    for name in set(sys.path_importer_cache) - known:
        del sys.path_importer_cache[name]
