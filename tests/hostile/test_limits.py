"""Limits that are none: refused with the field's name, whatever the number is, and never run."""

from __future__ import annotations

import pytest

from hostile.arena import Arena
from hostile.conftest import SANDBOXES

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("field", SANDBOXES[:1], indirect=True)]

FIELDS = ("timeout", "cpu_time", "memory_mb", "max_concurrency", "concurrency")
VALUES = [
    *("0", "-1", "-0.0", "1e308", "1e999", "-1e308", "1e-320", "NaN", "Infinity", "-Infinity", "9" * 400),
    *('""', '"0"', '"-5s"', '"1e9s"', '"\\u0665s"', '"5 s"', '"5s\\n"', "null", "true", "[]", "{}"),
    *('"' + "9" * 100_000 + '"', "[" * 100_000),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("name", FIELDS)
def test_a_limit_that_is_none_is_refused_with_its_name(field: Arena, name: str, value: str) -> None:
    body = f'{{"name": "limited", "runtime": "python", "code": "eD0x", "{name}": {value}}}'
    answer = field.node.ask("POST", "/functions", body.encode())
    assert answer.status == 400, answer
    message = answer.json["error"]["message"]
    assert name in message or "not JSON" in message, message
    assert len(message) < 1000
