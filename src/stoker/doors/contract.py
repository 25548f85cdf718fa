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

from stoker.doors.exchange import Exchange
from stoker.types import Invocation, Phases


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
