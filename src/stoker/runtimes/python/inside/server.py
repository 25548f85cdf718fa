"""Serves calls inside a sandbox: run as a program, or loaded once by a zygote and forked from it.

The work is in the package beside this file, so that its bytecode is kept; only importing it needs the
folder on `sys.path`, and the function never sees it there.
"""

from __future__ import annotations

import os
import sys

PRELOADED = ("collections", "datetime", "functools", "math", "random", "re", "traceback")
"""What nearly every function, or the server itself, imports sooner or later: a zygote does it first."""

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
_serving = __import__("stoker_server.serving", fromlist=["Server"])
_streams = __import__("stoker_server.streams", fromlist=["install"])
_anchoring = __import__("stoker_server.anchor", fromlist=["reserve"])
_rehearsal = __import__("stoker_server.rehearsal", fromlist=["rehearse_lives"])
sys.path.pop(0)


def serve(channel_fd: int) -> None:
    """Answer the frames of `docs/wire.md` on this descriptor; never returns."""
    _server.serve(channel_fd)


if __name__ == "__main__":
    _streams.install()
    _serving.Server(None).serve(3)
for _name in PRELOADED:
    __import__(_name)
__import__("stoker_server.packages")  # what it looks for is compiled once
_streams.install_ahead()
_server = _serving.Server(_anchoring.reserve())
# What they make for good (streams, caches, specialised code) is made once, and shared.
_rehearsal.rehearse_lives(_server.converse)
