"""A request on the fast route and the reply it waits for, as doors see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class Request:
    """What the head of a request asks for; the same object for every request with the same head."""

    __slots__ = ("function", "method", "path", "query")

    def __init__(self, method: str, path: str, query: bytes) -> None:
        """`path` is percent-decoded."""
        self.method = method
        self.path = path
        self.query = query
        self.function = ""
        """The key of the function it calls, kept here by the door that has found it out."""

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"


class Exchange(ABC):
    """One request on the fast route, its body complete, waiting for its one reply."""

    __slots__ = ("body", "on_left", "received", "request")

    request: Request
    body: bytes
    received: float
    """When its first byte was read, on the monotonic clock."""
    on_left: Callable[[], object] | None
    """Set by the door: called when the client has left before the reply."""

    @abstractmethod
    def reply(self, status: int, head: bytes, body: bytes) -> None:
        """Send the whole reply in one write; a second reply, or one to a client that left, is dropped.

        `head`: lines of headers, as `explanation.lines` writes them.
        """

    @abstractmethod
    def turn_away(self, status: int, head: bytes, body: bytes) -> None:
        """Reply that the client must come back later; while many do so at once it is not heard sooner."""
