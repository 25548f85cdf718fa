"""The ends of the process: every way out of serving calls, in one place."""

from __future__ import annotations

import os
import sys

from . import streams
from .channel import EndOfStream

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

PROTOCOL_ERROR = 78
INTERNAL_ERROR = 70


class ProcessFails:
    """Any exception that ends the block ends the process."""

    # Not a generator: what `contextlib` is made of would be touched, and so copied, in every sandbox.

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            end(error)


class ProcessEnds(ProcessFails):
    """Whatever ends the block ends the process; never returns."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        os._exit(INTERNAL_ERROR)


def end(error: BaseException) -> NoReturn:
    """End the process as one ends that has not caught this."""
    if isinstance(error, EndOfStream):
        os._exit(0)
    if isinstance(error, SystemExit):
        leave(error)
    sys.__excepthook__(type(error), error, error.__traceback__)
    streams.flush()
    os._exit(INTERNAL_ERROR)


def leave(asked: SystemExit) -> NoReturn:
    """Do what `sys.exit` promises, without waiting for threads the function may have left."""
    code = asked.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    streams.flush()
    os._exit((code or 0) & 0xFF)
