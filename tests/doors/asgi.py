"""One request to a door's ordinary handlers, straight into Litestar: no listener, no socket."""

from __future__ import annotations

from typing import Any

from litestar import Litestar


class Reply:
    """What came back."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    async def take(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]


async def ask(handlers: list[Any], method: str, target: str, body: bytes = b"") -> Reply:
    """The door's reply to one request."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    reply = Reply()
    await Litestar(handlers, openapi_config=None)(scope, receive, reply.take)  # type: ignore[arg-type]
    return reply
