"""What the function writes to stdout and stderr, on its way out."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import TextIO


def install() -> None:
    """Give this process text streams of its own on descriptors 1 and 2.

    Line by line, so that what a function said before it hung or crashed is not lost with it.
    """
    sys.stdout = sys.__stdout__ = _open(1)  # type: ignore[assignment,misc]
    sys.stderr = sys.__stderr__ = _open(2)  # type: ignore[assignment,misc]


def install_ahead() -> None:
    """The same for the processes forked from this one. They have pipes there, and a stream asks but once."""
    reading, writing = os.pipe()
    kept = [(fd, os.dup(fd), os.get_inheritable(fd)) for fd in (1, 2)]
    for fd, _, _ in kept:
        os.dup2(writing, fd)
    install()
    for fd, copy, is_inheritable in kept:
        os.dup2(copy, fd, is_inheritable)
        os.close(copy)
    os.close(reading)
    os.close(writing)


def _open(fd: int) -> TextIO:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def flush() -> None:
    """Write out what is still held; no system call when nothing is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            """The function has put something else in its place, or closed it."""
