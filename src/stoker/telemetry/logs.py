"""The node's own log: lines on stderr, for people on a terminal, JSON for everything else.

The standard library's `logging`, not structlog: that takes 45 ms to import, of the second that a
start may take, and would say the same.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

import msgspec

OWN = "stoker"
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every log record has; the rest was given as `extra`."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what was given as `extra`, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # a lone surrogate: written as its escape
            return json.dumps(line, default=str)


class Lines(logging.Formatter):
    """`14:03:07.123 info  pool  message  key=value`, and the traceback below it."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        room = record.name.removeprefix(f"{OWN}.")
        facts = "".join(f"  {name}={value}" for name, value in _extra(record).items())
        line = f"{self.formatTime(record)} {record.levelname.lower():7} {room}  {record.getMessage()}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


def open_log(level: str, stream: TextIO | None = None) -> None:
    """Send every library's warnings and our own lines from `level` up to `stream` (stderr)."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines() if stream.isatty() else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(OWN).setLevel(level.upper())
    logging.raiseExceptions = False
