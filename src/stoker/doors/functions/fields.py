"""The fields of a function as clients write them, each read by a reader that names field, value and range."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NoReturn

import msgspec

from stoker.egress import MOST_TARGETS, read_target
from stoker.errors import BadRequest
from stoker.types import Interpreter, Network, Reuse

LONGEST_SHOWN = 60  # characters of a bad value that its refusal repeats
LARGEST_ENVIRONMENT = 64 * 1024  # bytes; half of what Linux takes for one argument or variable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_ID = re.compile(r"[0-9a-f]{32}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}

Reader = Callable[[str, Any], Any]


def read(body: bytes, needed: frozenset[str]) -> dict[str, Any]:
    """The fields of a JSON object, checked each by itself. Raises `BadRequest`."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
    if not isinstance(given, dict):
        raise BadRequest(f"the body is a JSON {_kind(given)}; it must be an object")
    for field in needed - given.keys():
        raise BadRequest(f"{field} is not given; needed are {', '.join(sorted(needed))}")
    return {field: _reader(field)(field, value) for field, value in given.items()}


def is_id(ref: str) -> bool:
    """Whether this is how ids look; no name of a function looks so."""
    return len(ref) == 32 and _ID.fullmatch(ref) is not None


def _reader(field: str) -> Reader:
    if field not in READERS:
        raise BadRequest(f"unknown field {field[:LONGEST_SHOWN]!r}; there are {', '.join(READERS)}")
    return READERS[field]


def _refuse(field: str, value: object, allowed: str) -> NoReturn:
    shown = msgspec.json.encode(value).decode()
    if len(shown) > LONGEST_SHOWN:
        shown = shown[:LONGEST_SHOWN] + "…"
    raise BadRequest(f"{field} is {shown}; it must be {allowed}")


def _kind(value: object) -> str:
    kinds = {
        str: "string",
        bool: "boolean",
        int: "number",
        float: "number",
        list: "array",
        type(None): "null",
    }
    return kinds[type(value)]


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or is_id(value):
        _refuse(
            field, value, "1 to 63 letters, digits, '_', '.' or '-', the first a letter or digit, and no id"
        )
    return value


def _text(longest: int, least: int = 0) -> Reader:
    def reader(field: str, value: Any) -> str:
        if not isinstance(value, str) or not least <= len(value) <= longest or not (value.isprintable()):
            _refuse(field, value, f"a printable string of {least} to {longest} characters")
        return value

    return reader


def _whole(least: int, most: int) -> Reader:
    def reader(field: str, value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            _refuse(field, value, f"a whole number from {least} to {most}")
        return value

    return reader


def _truth(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        _refuse(field, value, "true or false")
    return value


def _span(field: str, value: Any) -> float:
    """Seconds, from `30`, `2.5`, `"30s"`, `"500ms"`, `"2m"`."""
    text = repr(value) if type(value) in (int, float) else value
    match = _SPAN.fullmatch(text) if isinstance(text, str) else None
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        _refuse(field, value, 'a number of seconds above 0, or a string such as "30s", "500ms" or "2m"')
    return seconds


def _code(field: str, value: Any) -> bytes:
    try:
        code = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        code = b""
    if not code:
        _refuse(field, value, "the base64 text of a zip, a tar.gz or one source file")
    return code


def _environment(field: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse(field, value, "an object of strings")
    for variable, text in value.items():
        if not _VARIABLE.fullmatch(variable) or "\0" in text:
            _refuse(
                f"{field}.{variable[:LONGEST_SHOWN]}",
                text,
                "a variable of letters, digits and '_', without NUL",
            )
    if sum(len(variable) + len(text.encode()) for variable, text in value.items()) > LARGEST_ENVIRONMENT:
        raise BadRequest(f"{field} is larger than {LARGEST_ENVIRONMENT} bytes")
    return value


def _metadata(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(msgspec.json.encode(value)) > LARGEST_ENVIRONMENT:
        _refuse(field, value, f"an object of at most {LARGEST_ENVIRONMENT} bytes")
    return value


def _choice(kind: type[StrEnum]) -> Reader:
    def reader(field: str, value: Any) -> StrEnum:
        words = [one.value for one in kind if one is not Network.HOST]
        if value not in words:
            _refuse(field, value, "one of " + ", ".join(words))
        return kind(value)

    return reader


def _targets(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MOST_TARGETS:
        _refuse(field, value, f"an array of at most {MOST_TARGETS} targets")
    read = []
    for at, item in enumerate(value):
        try:
            read.append(str(read_target(item if isinstance(item, str) else "")))
        except ValueError as error:
            _refuse(f"{field}[{at}]", item, str(error))
    return tuple(read)


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "name": _name,
        "version": _text(64, 1),
        "runtime": _text(64, 1),
        "handler": _text(256, 1),
        "code": _code,
        "timeout": _span,
        "cpu_time": _span,
        "memory_mb": _whole(1, 64 * 1024 * 1024),
        "max_concurrency": _whole(1, 100_000),
        "environment": _environment,
        "metadata": _metadata,
        "reuse": _choice(Reuse),
        "concurrency": _whole(1, 10_000),
        "network": _choice(Network),
        "egress": _targets,
        "sandbox": _text(64, 1),
        "zygote": _truth,
        "interpreter": _choice(Interpreter),
    }
)
