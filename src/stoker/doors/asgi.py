"""The ASGI application behind the listener: every door's ordinary handlers, and what nobody has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.openapi import OpenAPIConfig

from stoker.doors.contract import Door

JSON = "application/json"


def application(doors: Sequence[Door], version: str) -> Litestar:
    """All doors' handlers; what nobody has is answered in the shape of the door it is nearest to."""

    def unknown(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        for door in doors:
            answer = door.unknown_path(request.method, request.scope["path"])
            if answer is not None:
                return Response(answer[1], status_code=answer[0], media_type=JSON)
        return Response(b"{}", status_code=error.status_code, media_type=JSON)

    return Litestar(
        [handler for door in doors for handler in door.handlers()],
        exception_handlers={NotFoundException: unknown, MethodNotAllowedException: unknown},
        openapi_config=OpenAPIConfig(title="Stoker", version=version, path="/openapi"),
        logging_config=None,
        debug=False,
    )
