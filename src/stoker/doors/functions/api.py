"""`/functions` and `/stats`: what is not a call."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from litestar import Request, Response, Router, delete, get, post, put
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from stoker.doors import explanation
from stoker.doors.functions import fields, replies, shapes
from stoker.doors.functions.call import CATALOG
from stoker.errors import BadRequest, NodeError, NoSuchFunction, PayloadTooLarge

if TYPE_CHECKING:
    from stoker.node import Node

AnyRequest = Request[Any, Any, Any]

JSON = "application/json"
FRONT = "front"
NEEDED = frozenset({"name", "code"})  # what else there is to know, a package may say itself
TYPES = {404: "not_found", 405: "method_not_allowed", 413: PayloadTooLarge.code}
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
    async def show(ref: FromPath[str]) -> Response[bytes]:
        return _data(shapes.function(await node.functions.get(ref)))

    @put("/functions/{ref:str}", request_max_body_size=largest)
    async def change(ref: FromPath[str], request: AnyRequest) -> Response[bytes]:
        wish = await asyncio.to_thread(fields.read, await request.body(), frozenset[str]())
        return _data(shapes.function(await node.functions.change(ref, **wish)))

    @delete("/functions/{ref:str}", status_code=200)
    async def remove(ref: FromPath[str]) -> Response[bytes]:
        return _data(shapes.function(await node.functions.delete(ref)))

    @get("/functions/{ref:str}/logs")
    async def logs(ref: FromPath[str], request: AnyRequest) -> Response[bytes]:
        asked = _parameters(request, {"after", "limit"})
        records = await _records(node, ref, _number(asked, "limit", PAGE, 1), asked.get("after"))
        return _data([shapes.invocation(record) for record in records])

    @get("/stats")
    async def stats() -> Response[bytes]:
        rooms = {"calls": node.metrics.snapshot(), "pool": node.pool.snapshot(), "code": node.code.snapshot()}
        return _data({"node": node.settings.node_id, "draining": node.is_draining, **rooms})

    return Router(
        path="/",
        route_handlers=[create, list_, show, change, remove, logs, stats],
        exception_handlers={NodeError: _failed, HTTPException: _refused, Exception: _broken},
        include_in_schema=False,
    )


async def _records(node: Node, ref: str, limit: int, after: str | None) -> list[Any]:
    """The newest invocations, or the first after one, oldest first.

    A name that was not deployed may be one of the Worker Front's; then its calls are shown.
    """
    try:
        key = f"{CATALOG}/{(await node.functions.get(ref)).name}"
        unknown = None
    except NoSuchFunction as error:
        key, unknown = f"{FRONT}/{ref}", error
    records = await node.records.invocations(function=key, limit=limit, after=after)
    if unknown is not None and not records and after is None:
        raise unknown
    return list(records) if after else list(reversed(records))


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
    type_ = TYPES.get(error.status_code, "internal_error" if error.status_code >= 500 else "bad_request")
    return Response(replies.fault(type_, error.detail), media_type=JSON, status_code=error.status_code)


def _broken(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return Response(replies.error_body(error), media_type=JSON, status_code=replies.INTERNAL)
