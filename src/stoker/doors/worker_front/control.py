"""`/configure`, `/clear`, `/prepare`: what is not a call."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, Response, Router, get
from litestar.exceptions import HTTPException

from stoker.doors.worker_front import replies
from stoker.doors.worker_front.execute import CATALOG
from stoker.doors.worker_front.knobs import Knobs, State
from stoker.errors import BadRequest, NodeError

if TYPE_CHECKING:
    from stoker.node import Node

AnyRequest = Request[Any, Any, Any]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)


class Configured(msgspec.Struct, frozen=True, rename="pascal"):
    """The reply of `/configure`."""

    message: str
    state: State


def router(node: Node, knobs: Knobs) -> Router:
    """The handlers of this door, with its own shape for whatever fails in them."""

    @get("/configure")
    async def configure(request: AnyRequest) -> Response[bytes]:
        changed = knobs.change(_parameters(request))
        message = "configure changed" if changed else "nothing changed"
        return Response(msgspec.json.encode(Configured(message, knobs.state)), media_type=JSON)

    @get("/clear")
    async def clear(request: AnyRequest) -> Response[bytes]:
        images = _reset_images(_parameters(request))
        await node.pool.clear(CATALOG)
        if images:
            node.code.forget_catalog(CATALOG)
        return _text(f"done; reset_images={str(images).lower()}")

    @get("/prepare")
    async def prepare() -> Response[bytes]:
        names = await node.code.names(CATALOG)
        errors = await asyncio.gather(*(_prepared(node, name) for name in names))
        lines = [line for line in errors if line]
        return _text("\n".join(lines), replies.FAILED) if lines else _text("done")

    return Router(
        path="/",
        route_handlers=[configure, clear, prepare],
        exception_handlers={NodeError: _failed, HTTPException: _refused, Exception: _broken},
        include_in_schema=False,
    )


async def _prepared(node: Node, name: str) -> str:
    """Fetch and build one function; what went wrong, in one line, else nothing."""
    try:
        pin = await node.code.fetch(f"{CATALOG}/{name}")
    except NodeError as error:
        return f"{name}: {' '.join(error.message.split())}"
    pin.release()
    return ""


def _parameters(request: AnyRequest) -> list[tuple[str, str]]:
    query: bytes = request.scope["query_string"]
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")


def _reset_images(parameters: list[tuple[str, str]]) -> bool:
    word = "false"
    for key, value in parameters:
        if key != "reset_images":
            raise BadRequest(f"unknown key {key!r}; there is reset_images")
        word = value.lower()
    if word not in ("true", "false"):
        raise BadRequest(f"reset_images is {word!r}; it must be true or false")
    return word == "true"


def _text(words: str, status: int = 200) -> Response[bytes]:
    return Response(words.encode(), media_type=TEXT, status_code=status)


def _failed(_: AnyRequest, error: NodeError) -> Response[bytes]:
    return Response(replies.error_body(error), media_type=JSON, status_code=replies.status_of(error))


def _refused(_: AnyRequest, error: HTTPException) -> Response[bytes]:
    """What Litestar itself will not take."""
    return Response(replies.failure(error.detail), media_type=JSON, status_code=error.status_code)


def _broken(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return Response(replies.error_body(error), media_type=JSON, status_code=replies.FAILED)
