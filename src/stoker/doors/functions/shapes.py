"""How records look outside: the node's own words in, the API's JSON out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec


def data(value: Any, **beside: Any) -> bytes:
    """The shape of every success."""
    return msgspec.json.encode({"data": value, **beside})


def function(record: msgspec.Struct) -> dict[str, Any]:
    """A deployed function."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    config = fields["config"]
    cpu_time_s = config.pop("cpu_time_s")
    config["timeout"] = span(config.pop("timeout_s"))
    config["cpu_time"] = None if cpu_time_s is None else span(cpu_time_s)
    return fields | {name: moment(fields[name]) for name in ("created_at", "updated_at")}


def invocation(record: msgspec.Struct) -> dict[str, Any]:
    """An invocation with what it wrote; bytes that are no UTF-8 become U+FFFD."""
    fields = msgspec.structs.asdict(record)
    error = {name: fields.pop(f"error_{name}") for name in ("type", "message", "stack")}
    texts = {name: fields[name].decode("utf-8", "replace") for name in ("stdout", "stderr")}
    moments = {name: moment(fields[name]) for name in ("created_at", "finished_at")}
    del fields["result"]
    return fields | texts | moments | {"error": error if error["type"] else None}


def span(seconds: float) -> str:
    """`30s`, `2.5s`."""
    return f"{seconds:.9g}s"


def moment(seconds: float) -> str:
    """A time in UTC, as RFC 3339 writes it, in milliseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
