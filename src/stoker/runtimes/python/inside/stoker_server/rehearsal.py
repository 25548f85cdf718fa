"""What a server does while it waits for its function: all that a first call does, with a stand-in.

Theory. After a fork a page is copied when it is first written to, and in Python every object that is looked
at is written to, for its references are counted. Loading and calling even an empty function touches so
many pages of the zygote's that copying them takes longer than the rest. A sandbox that waits without a
function has the time to do it before: from LOAD to the first answer then takes a third.

Only the way that is taken later is of use. Hence a whole conversation, from the first frame to the end of the
stream, and a stand-in that has its bytecode, as a function has that was built. It is in memory: on disk there
would have to be one for each version of the language.

A zygote rehearses too, once, before any fork: what a first call makes and keeps is then everybody's, and each
sandbox has less of its own.
"""

from __future__ import annotations

import _socket
import gc
import json
import marshal
import os
import select
import sys

# By their own module: `importlib.machinery` is one more to import, in every start without a zygote.
from _frozen_importlib_external import MAGIC_NUMBER, FileFinder, SourceFileLoader

from .channel import CALL, LOAD, WIRE, Channel, EndOfStream, write_frame
from .failures import CODE_PATH

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "standin")
MODULE = "stoker_standin"
LIVES = 10  # Python 3.11 rewrites a function's code at its eighth call; later versions do so at once
WAIT_MS = 1  # where a function has been asked for already, LOAD is here by then
WORDS = {
    "wire": WIRE,
    "mode": "process",
    "concurrency": 1,
    "function": "",
    "memory_mb": 0,
    "result_bytes": 1024,
    "code": FOLDER,
    "handler": MODULE + ".handle",
    "environment": {},
}
EVENT = bytes(20) + b'{"a":["b",1]}'
SCRIPT = write_frame(LOAD, 0, json.dumps(WORDS).encode()) + write_frame(CALL, 1, EVENT)
UNCHECKED = (1).to_bytes(4, "little") + bytes(8)  # bytecode that goes by a hash which nobody looks at


class Compiled(SourceFileLoader):
    """Reads a file, as that of a real function is read, and gives the stand-in's bytecode."""

    def get_data(self, path: str) -> bytes:
        source = super().get_data(self.path)
        return source if path == self.path else BYTECODE


def rehearse_unless_asked(channel_fd: int, serve: Callable[[Channel], None]) -> None:
    """Rehearse, unless the node has said something or says it soon. Leaves no trace but in memory."""
    waiting = select.poll()
    waiting.register(channel_fd, select.POLLIN)
    if not waiting.poll(WAIT_MS):
        rehearse(serve)


def rehearse_lives(converse: Callable[[Channel], None]) -> None:
    """In a zygote: go through all that its children do, from birth on, until nothing of it is new."""
    import ctypes

    gc.collect()
    for _ in range(LIVES):
        ctypes.pythonapi.PyOS_BeforeFork()
        ctypes.pythonapi.PyOS_AfterFork_Child()
        rehearse(converse)


def rehearse(serve: Callable[[Channel], None]) -> None:
    """Have the stand-in loaded and called by `serve`. Leaves no trace but in memory."""
    path, arguments, folder = list(sys.path), sys.argv, os.getcwd()
    known = len(sys.path_importer_cache)
    sys.path_importer_cache[FOLDER] = FileFinder(FOLDER, (Compiled, [".py"]))
    _play(serve)
    while len(sys.path_importer_cache) > known:
        sys.path_importer_cache.popitem()  # the last that came
    _expect_code()
    sys.path[:], sys.argv = path, arguments
    os.chdir(folder)
    del sys.modules[MODULE]


def _play(serve: Callable[[Channel], None]) -> None:
    """Be told to load and to run, and that there is no more; nobody hears what is answered."""
    node, ours = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    node.send(SCRIPT)
    node.shutdown(_socket.SHUT_WR)
    try:
        serve(Channel(ours.fileno()))
    except EndOfStream:
        node.close()
        ours.close()


def _expect_code() -> None:
    """Have the import system know the place where the code will be, and nothing of what is there now."""
    sys.meta_path[-1].find_spec(MODULE, [CODE_PATH])
    place = sys.path_importer_cache.get(CODE_PATH)
    if isinstance(place, FileFinder):
        place.invalidate_caches()
    else:
        sys.path_importer_cache.pop(CODE_PATH, None)


def _compile() -> bytes:
    path = os.path.join(FOLDER, MODULE + ".py")
    with open(path, "rb") as file:
        return MAGIC_NUMBER + UNCHECKED + marshal.dumps(compile(file.read(), path, "exec", dont_inherit=True))


BYTECODE = _compile()
