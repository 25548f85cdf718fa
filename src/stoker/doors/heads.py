"""Which route a request takes, and what was made of the heads that came before."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.doors.contract import Route
from stoker.doors.exchange import Request

MAX_HEADS, MAX_HEAD_BYTES = 1024, 2048
"""So many heads are remembered, none longer: 4 MB, where every client sends ever new ones."""


class Routes:
    """Finds the route of a path: exactly, or by what stands before and after one free segment."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact = {route.path.encode(): route for route in routes if "*" not in route.path}
        self._free = [
            (before.encode(), after.encode(), route)
            for route in routes
            for before, star, after in [route.path.partition("*")]
            if star
        ]

    def find(self, path: bytes, method: str) -> Route | None:
        route = self._exact.get(path)
        if route is None:
            for before, after, free in self._free:
                if path.startswith(before) and path.endswith(after):
                    segment = path[len(before) : len(path) - len(after)]
                    if segment and b"/" not in segment:
                        route = free
                        break
        return route if route is not None and method in route.methods else None


class Head:
    """What the parser made of the head of a request."""

    __slots__ = ("body_bytes", "keep_alive", "request", "route")

    def __init__(self, route: Route, request: Request, keep_alive: bool) -> None:
        self.route = route
        self.request = request
        self.keep_alive = keep_alive
        self.body_bytes = 0

    def __repr__(self) -> str:
        return f"<Head of {self.request!r} with {self.body_bytes} bytes>"


class Heads:
    """The heads that were parsed last, by their bytes; those of whole requests on fast routes alone."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get

    def __repr__(self) -> str:
        return f"<Heads, {len(self._known)} known>"

    def keep(self, text: bytes, head: Head, body_bytes: int) -> None:
        """Remember what was parsed of `text`, behind which so many bytes of a body followed."""
        if len(text) <= MAX_HEAD_BYTES:
            if len(self._known) >= MAX_HEADS:
                self._known.clear()
            head.body_bytes = body_bytes
            self._known[text] = head
