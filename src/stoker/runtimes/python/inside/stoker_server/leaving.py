"""The ends of the process: every way out of serving calls, in one place."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from . import streams
from .channel import EndOfStream

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL_ERROR = 78
INTERNAL_ERROR = 70


@contextmanager
def process_ends() -> Iterator[None]:
    """Whatever ends the block ends the process; never returns."""
    with process_fails():
        yield
    os._exit(INTERNAL_ERROR)


@contextmanager
def process_fails() -> Iterator[None]:
    """Any exception that ends the block ends the process."""
    try:
        yield
    except EndOfStream:
        os._exit(0)
    except SystemExit as end:
        leave(end)
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
        streams.flush()
        os._exit(INTERNAL_ERROR)


def leave(end: SystemExit) -> None:
    """Do what `sys.exit` promises, without waiting for threads the function may have left."""
    code = end.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    streams.flush()
    os._exit((code or 0) & 0xFF)
