"""What a door promises: two translations (outside to our words and back) and one table.

A door is given the node and answers two kinds of requests. *Calls* come through `routes()`: the
listener hands over an `Exchange` with the whole body, outside ASGI, without a task; the door starts
a `Call` and replies when it settles. Everything else a door does (configuration, listings) are
ordinary Litestar handlers, returned by `handlers()`.

HOLDS (invariant 1): a door never sees a sandbox, a path or a pool; every code of `errors.py` has a
row in the door's table, and a missing row fails a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import msgspec

from stoker.types import Invocation, Phases


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


class Exchange(Protocol):
    """One request on the fast route, its body complete, waiting for its one reply."""

    request: Request
    body: bytes
    received: float
    """When its first byte was read, on the monotonic clock."""
    on_left: Callable[[], object] | None
    """Set by the door: called when the client has left before the reply."""

    def reply(self, status: int, head: bytes, body: bytes) -> None:
        """Send the whole reply in one write; a second reply, or one to a client that left, is dropped.

        `head`: lines of headers, as `explanation.lines` writes them.
        """

    def turn_away(self, status: int, head: bytes, body: bytes) -> None:
        """Reply that the client must come back later; while many do so at once it is not heard sooner."""


class Call(Protocol):
    """A call that a door has started, as it hears of its end."""

    @property
    def invocation(self) -> Invocation: ...
    @property
    def caller(self) -> Any:
        """Whatever the door has given along: the exchange."""

    @property
    def phases(self) -> Phases: ...


class Route(msgspec.Struct, frozen=True):
    """Which requests are calls: `/execute` exactly, or `/functions/*/call` with one free segment."""

    methods: frozenset[str]
    path: str
    answer: Callable[[Exchange], None]
    refuse: Callable[[Exchange, Exception], None]
    """Replies in the door's own shape to what the listener itself refuses (`PayloadTooLarge`)."""


class Door(ABC):
    """One dialect in which work gets in."""

    name: ClassVar[str]

    @abstractmethod
    def routes(self) -> list[Route]:
        """The fast routes."""

    @abstractmethod
    def handlers(self) -> list[Any]:
        """Litestar route handlers for everything else."""

    def unknown_path(self, method: str, path: str) -> tuple[int, bytes] | None:
        """What this door answers on a path nobody has, as status and JSON; None: not mine to say."""
        return None

    async def open(self) -> None:
        """Called once the node is open, before the first request."""

    async def close(self) -> None:
        """Called when no call is left inside."""
