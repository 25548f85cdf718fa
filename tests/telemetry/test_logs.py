from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from stoker.telemetry.logs import open_log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def log_of_the_tests() -> Iterator[None]:
    """Puts logging back as it was."""
    root, own = logging.getLogger(), logging.getLogger("stoker")
    before = root.handlers[:], root.level, own.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, own.level, logging.raiseExceptions = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_for_programs_is_one_json_object() -> None:
    stream = io.StringIO()
    open_log("info", stream)
    logging.getLogger("stoker.pool").warning("two\nlines and %s", "ü", extra={"number": 3, "thing": object})
    (line,) = lines(stream)
    assert line.pop("time") > 0
    assert line == {
        "level": "warning",
        "logger": "stoker.pool",
        "message": "two\nlines and ü",
        "number": 3,
        "thing": "<class 'object'>",
    }


def test_a_traceback_stays_in_its_line() -> None:
    stream = io.StringIO()
    open_log("info", stream)
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("stoker").exception("broken")
    (line,) = lines(stream)
    assert line["traceback"].endswith("KeyError: 'x'")


def test_people_get_a_readable_line() -> None:
    stream = Terminal()
    open_log("info", stream)
    logging.getLogger("stoker.pool").info("filled", extra={"sandboxes": 3})
    assert stream.getvalue()[12:] == " info    pool  filled  sandboxes=3\n"


def test_the_level_is_ours_and_libraries_only_warn() -> None:
    stream = io.StringIO()
    open_log("debug", stream)
    for name in ("stoker.pool", "asyncio"):
        logging.getLogger(name).debug("detail")
        logging.getLogger(name).warning("warning")
    assert [(line["logger"], line["message"]) for line in lines(stream)] == [
        ("stoker.pool", "detail"),
        ("stoker.pool", "warning"),
        ("asyncio", "warning"),
    ]


def test_text_that_is_no_unicode_is_logged_all_the_same() -> None:
    stream = io.StringIO()
    open_log("info", stream)
    logging.getLogger("stoker").info("half \ud83d a face")
    assert lines(stream)[0]["message"] == "half \ud83d a face"
