from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from stoker.doors.functions.fields import read
from stoker.errors import BadRequest
from stoker.types import Reuse

NONE: frozenset[str] = frozenset()


def refusal(given: Any, needed: frozenset[str] = NONE) -> str:
    with pytest.raises(BadRequest) as refused:
        read(given if isinstance(given, bytes) else json.dumps(given).encode(), needed)
    return refused.value.message


def test_every_field_is_read_into_our_own_words() -> None:
    given = {
        "name": "hello-1",
        "version": "1.0.0",
        "runtime": "python",
        "handler": "main.handler",
        "code": base64.b64encode(b"PK").decode(),
        "timeout": "30s",
        "memory_mb": 256,
        "max_concurrency": 10,
        "environment": {"KEY": "vélue\n"},
        "metadata": {"team": ["a", 1]},
        "reuse": "sandbox",
        "concurrency": 2,
        "sandbox": "lean",
    }
    assert read(json.dumps(given).encode(), NONE) == given | {
        "code": b"PK",
        "timeout": 30.0,
        "reuse": Reuse.SANDBOX,
    }


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(30, 30.0), (2.5, 2.5), ("30", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1.5h", 5400.0)],
)
def test_a_timeout_is_a_number_or_a_span(written: object, seconds: float) -> None:
    assert read(json.dumps({"timeout": written}).encode(), NONE) == {"timeout": seconds}


SPAN = 'a number of seconds above 0, or a string such as "30s", "500ms" or "2m"'


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("timeout", 0, f"timeout is 0; it must be {SPAN}"),
        ("timeout", -1, f"timeout is -1; it must be {SPAN}"),
        ("timeout", 1e308, f"timeout is 1e308; it must be {SPAN}"),
        ("timeout", True, f"timeout is true; it must be {SPAN}"),
        ("timeout", "soon", f'timeout is "soon"; it must be {SPAN}'),
        ("timeout", None, f"timeout is null; it must be {SPAN}"),
        ("memory_mb", "256", 'memory_mb is "256"; it must be a whole number from 1 to 67108864'),
        ("memory_mb", 2.5, "memory_mb is 2.5; it must be a whole number from 1 to 67108864"),
        ("memory_mb", True, "memory_mb is true; it must be a whole number from 1 to 67108864"),
        ("max_concurrency", 0, "max_concurrency is 0; it must be a whole number from 1 to 100000"),
        ("reuse", "often", 'reuse is "often"; it must be one of none, sandbox, process'),
        ("interpreter", "none", 'interpreter is "none"; it must be one of forked, own'),
        ("reuse", [], "reuse is []; it must be one of none, sandbox, process"),
        ("runtime", "", 'runtime is ""; it must be a printable string of 1 to 64 characters'),
        ("handler", "a\nb", 'handler is "a\\nb"; it must be a printable string of 1 to 256 characters'),
        ("code", "", 'code is ""; it must be the base64 text of a zip, a tar.gz or one source file'),
        (
            "code",
            "é" * 100,
            f'code is "{"é" * 59}…; it must be the base64 text of a zip, a tar.gz or one source file',
        ),
        ("code", 7, "code is 7; it must be the base64 text of a zip, a tar.gz or one source file"),
        ("environment", [], "environment is []; it must be an object of strings"),
        ("environment", {"A": 1}, 'environment is {"A":1}; it must be an object of strings'),
        (
            "environment",
            {"A=B": "c"},
            "environment.A=B is \"c\"; it must be a variable of letters, digits and '_', without NUL",
        ),
        ("environment", {"A": "x" * 70_000}, "environment is larger than 65536 bytes"),
        ("metadata", "x", 'metadata is "x"; it must be an object of at most 65536 bytes'),
    ],
)
def test_a_refusal_names_field_value_and_range(field: str, value: object, said: str) -> None:
    assert refusal({field: value}) == said


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a/b", ".a", "a b", "é", "a\n", "x" * 64, "0190c0de000070008000000000000001", 7, None],
)
def test_a_name_cannot_be_a_path_nor_an_id(name: object) -> None:
    assert refusal({"name": name}).startswith(f"name is {json.dumps(name, ensure_ascii=False)[:10]}")


def test_an_unknown_field_names_those_that_exist() -> None:
    assert refusal({"memory": 1}).startswith("unknown field 'memory'; there are name, version, runtime, ")


def test_a_missing_field_is_named() -> None:
    needed = frozenset({"name", "code"})
    assert refusal({"name": "a"}, needed) == "code is not given; needed are code, name"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON: Input data was truncated"),
        (b"{", "the body is not JSON: Input data was truncated"),
        (b"x=1", "the body is not JSON: invalid character (byte 0)"),
        (b"[]", "the body is a JSON array; it must be an object"),
        (b"null", "the body is a JSON null; it must be an object"),
        (
            b"[" * 100_000,
            "the body is not JSON: maximum recursion depth exceeded while deserializing an object",
        ),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, said: str) -> None:
    assert refusal(body) == said
