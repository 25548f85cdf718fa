"""`deploy`, `functions`, `delete`: what runs on a node."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stoker.cli.exits import REFUSED, USAGE, Failure
from stoker.cli.remote import client
from stoker.cli.remote.packing import pack

EXISTS = 409
PAGE = 1000


def deploy(url: str, path: Path, wish: Mapping[str, Any], *, replace: bool) -> dict[str, Any]:
    """Send what is at `path`; returns the record. `wish`: the API's fields, None where not said."""
    package = pack(path)
    said = {key: value for key, value in wish.items() if value is not None}
    fields = {"name": package.name, "runtime": package.runtime, **said}
    if fields["runtime"] is None:
        raise Failure(
            f'{path} does not tell its language (a config.json with an "environment", main.py, index.js); '
            "say --runtime",
            USAGE,
        )
    fields["code"] = base64.b64encode(package.code).decode()
    reply = client.ask(url, "POST", "/functions", _json(fields))
    if reply.status == EXISTS and not replace:
        raise Failure(f"there is a function {fields['name']!r} already; --replace deploys over it", REFUSED)
    if reply.status == EXISTS:
        reply = client.ask(url, "PUT", client.path_of(fields["name"]), _json(fields))
    record: dict[str, Any] = client.data(reply)
    return record


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def functions(url: str) -> list[dict[str, Any]]:
    """Every deployed function."""
    found: list[dict[str, Any]] = []
    while True:
        page = client.data(client.ask(url, "GET", f"/functions?limit={PAGE}&offset={len(found)}"))
        found += page
        if len(page) < PAGE:
            return found


def delete(url: str, name: str) -> None:
    """No call of it from now on."""
    client.data(client.ask(url, "DELETE", client.path_of(name)))
