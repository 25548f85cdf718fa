"""`invoke` and `logs`: one call and what is kept of calls."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from stoker.cli.exits import FAILED, OK, REFUSED, USAGE, Failure, code_of_type
from stoker.cli.remote import client

LOOK_EVERY_S = 0.5
RECENT = 50  # records looked through for the one of a call that has just ended
USED = re.compile(r"(\w+)=([0-9.]+)")
PART = re.compile(r"(\w+);dur=([0-9.]+)")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole outcome of one call, as `--json` prints it."""

    id: str
    status: str
    """As the record says; empty where there is none."""
    result: Any
    error: dict[str, str] | None
    limit: str
    """The limit that the call has met; empty: none."""
    usage: dict[str, float]
    """What was measured of it, by the names of the record."""
    stdout: str
    stderr: str
    phases_ms: dict[str, float]
    took_ms: float
    """At this client."""
    note: str
    exit_code: int
    body: bytes
    """The result as it came."""


def whole(answer: Answer) -> dict[str, Any]:
    """What `--json` prints."""
    fields = msgspec.structs.asdict(answer)
    del fields["body"]
    return fields


def event_of(said: str | None) -> bytes:
    """The event's bytes: JSON itself, `@file`, or `-` for stdin; nothing said is `{}`."""
    if said is None:
        return b"{}"
    try:
        if said == "-":
            return sys.stdin.buffer.read()
        return Path(said[1:]).read_bytes() if said.startswith("@") else os.fsencode(said)
    except OSError as error:
        raise Failure(f"{said[1:]} cannot be read: {error.strerror}", USAGE) from None


def invoke(url: str, name: str, event: bytes) -> Answer:
    """Call once. Raises `Failure` when the node did not run the function."""
    began = time.perf_counter()
    reply = client.ask(url, "POST", f"{client.path_of(name)}/call", event)
    took_ms = (time.perf_counter() - began) * 1000
    code = _code(reply)
    if code not in (OK, FAILED):
        raise client.failure(reply)
    invocation = reply.headers.get("x-invocation-id", "")
    record = _record(url, name, invocation)
    return Answer(
        id=invocation,
        status=record.get("status", ""),
        result=_result(reply) if code == OK else None,
        error=None if code == OK else client.error_of(reply),
        limit=reply.headers.get("x-stoker-limit", ""),
        usage={name: float(used) for name, used in USED.findall(reply.headers.get("x-stoker-usage", ""))},
        stdout=record.get("stdout", ""),
        stderr=record.get("stderr", ""),
        phases_ms={name: float(ms) for name, ms in PART.findall(reply.headers.get("server-timing", ""))},
        took_ms=round(took_ms, 3),
        note=reply.headers.get("x-stoker-note", ""),
        exit_code=code,
        body=reply.body,
    )


def _code(reply: client.Reply) -> int:
    if reply.status < 400:
        return OK
    code = code_of_type(client.error_of(reply)["type"])
    if code is None:
        code = FAILED if reply.status >= 500 else REFUSED
    return code


def _result(reply: client.Reply) -> Any:
    try:
        return json.loads(reply.body)
    except ValueError:
        return reply.body.decode("utf-8", "replace")


def _record(url: str, name: str, invocation: str) -> dict[str, Any]:
    """What the node kept of the call; nothing, if it keeps none, or has stopped since."""
    try:
        records = client.data(client.ask(url, "GET", f"{client.path_of(name)}/logs?limit={RECENT}"))
    except Failure:
        return {}
    return next((record for record in records if record["id"] == invocation), {})


def logs(url: str, name: str, number: int) -> list[dict[str, Any]]:
    """The records of the last `number` calls, the oldest first."""
    path = f"{client.path_of(name)}/logs"
    records: list[dict[str, Any]] = client.data(client.ask(url, "GET", f"{path}?limit={number}"))
    return records


def follow(url: str, name: str, number: int) -> Iterator[dict[str, Any]]:
    """The same, and then each call as it ends, for ever."""
    path = f"{client.path_of(name)}/logs"
    seen = "none"  # an id that is not known was before all
    for record in logs(url, name, number):
        seen = record["id"]
        yield record
    while True:
        for record in client.data(client.ask(url, "GET", f"{path}?after={seen}")):
            seen = record["id"]
            yield record
        time.sleep(LOOK_EVERY_S)
