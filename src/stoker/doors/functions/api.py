"""`/functions` and `/stats`: what is not a call."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from litestar import Request, Response, Router, delete, get, post, put
from litestar.exceptions import HTTPException

from stoker.doors import explanation
from stoker.doors.functions import fields, replies, shapes
from stoker.doors.functions.call import CATALOG
from stoker.errors import BadRequest, NodeError

if TYPE_CHECKING:
    from stoker.node import Node

AnyRequest = Request[Any, Any, Any]

JSON = "application/json"
NEEDED = frozenset({"name", "runtime", "code"})
MOST_AT_ONCE = 1000
PAGE = 50

log = logging.getLogger(__name__)


def router(node: Node) -> Router:
    """The handlers of this door, with its own shape for whatever fails in them."""
    # A package in base64 is a third larger; a megabyte for the other fields.
    largest = node.settings.max_package_mb * 1024 * 1024 * 4 // 3 + 1024 * 1024

    @post("/functions", request_max_body_size=largest)
    async def create(request: AnyRequest) -> Response[bytes]:
        wish = await asyncio.to_thread(fields.read, await request.body(), NEEDED)
        return _data(shapes.function(await node.functions.create(**wish)), status=201)

    @get("/functions")
    async def list_(request: AnyRequest) -> Response[bytes]:
        asked = _parameters(request, {"limit", "offset", "name"})
        limit, offset = _number(asked, "limit", PAGE, 1), _number(asked, "offset", 0, 0)
        records = await node.functions.list(limit=limit, offset=offset, name=asked.get("name"))
        shown = [shapes.function(record) for record in records]
        return _data(shown, paging={"limit": limit, "offset": offset, "count": len(shown)})

    @get("/functions/{ref:str}")
    async def show(ref: str) -> Response[bytes]:
        return _data(shapes.function(await node.functions.get(ref)))

    @put("/functions/{ref:str}", request_max_body_size=largest)
    async def change(ref: str, request: AnyRequest) -> Response[bytes]:
        wish = await asyncio.to_thread(fields.read, await request.body(), frozenset[str]())
        return _data(shapes.function(await node.functions.change(ref, **wish)))

    @delete("/functions/{ref:str}", status_code=200)
    async def remove(ref: str) -> Response[bytes]:
        return _data(shapes.function(await node.functions.delete(ref)))

    @get("/functions/{ref:str}/logs")
    async def logs(ref: str, request: AnyRequest) -> Response[bytes]:
        asked = _parameters(request, {"after", "limit"})
        limit = _number(asked, "limit", PAGE, 1)
        key = await _key(node, ref)
        records = await node.records.invocations(function=key, limit=limit, after=asked.get("after"))
        return _data([shapes.invocation(record) for record in records])

    @get("/stats")
    async def stats() -> Response[bytes]:
        return _data(node.stats())

    return Router(
        path="/",
        route_handlers=[create, list_, show, change, remove, logs, stats],
        exception_handlers={NodeError: _failed, HTTPException: _refused, Exception: _broken},
        include_in_schema=False,
    )


async def _key(node: Node, ref: str) -> str:
    return f"{CATALOG}/{(await node.functions.get(ref)).name}"


def _parameters(request: AnyRequest, known: set[str]) -> dict[str, str]:
    query: bytes = request.scope["query_string"]
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")
    for key, _ in pairs:
        if key not in known:
            raise BadRequest(f"unknown parameter {key[:60]!r}; there are {', '.join(sorted(known))}")
    return dict(pairs)


def _number(asked: dict[str, str], key: str, default: int, least: int) -> int:
    text = asked.get(key, str(default))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    most = MOST_AT_ONCE if key == "limit" else 10**9
    if not least <= number <= most:
        raise BadRequest(f"{key} is {text[:60]!r}; it must be a whole number from {least} to {most}")
    return number


def _data(value: Any, status: int = 200, **beside: Any) -> Response[bytes]:
    return Response(shapes.data(value, **beside), media_type=JSON, status_code=status)


def _failed(_: AnyRequest, error: NodeError) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in explanation.error_headers(error)}
    return Response(
        replies.error_body(error), headers=headers, media_type=JSON, status_code=replies.status_of(error)
    )


def _refused(_: AnyRequest, error: HTTPException) -> Response[bytes]:
    """What Litestar itself will not take."""
    body = replies.fault("bad_request" if error.status_code < 500 else "internal_error", error.detail)
    return Response(body, media_type=JSON, status_code=error.status_code)


def _broken(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return Response(replies.error_body(error), media_type=JSON, status_code=replies.INTERNAL)
