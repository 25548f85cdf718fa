"""The Functions door: deploy, list, call and watch functions over plain REST."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from stoker.doors import contract, explanation
from stoker.doors.exchange import Exchange
from stoker.doors.functions import replies
from stoker.doors.functions.call import Caller
from stoker.errors import Draining

if TYPE_CHECKING:
    from stoker.node import Node

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "/functions": "GET and POST",
        "/functions/*": "GET, PUT and DELETE",
        "/functions/*/call": "POST",
        "/functions/*/logs": "GET",
        "/health": "GET",
        "/stats": "GET",
    }
)
HEALTHY = b'{"data":{"status":"ok"}}'
HEALTHY_HEAD = explanation.lines([explanation.JSON])


class FunctionsDoor(contract.Door):
    """Calls and health on the fast route, the rest as ordinary handlers."""

    name: ClassVar[str] = "functions"

    def __init__(self, node: Node) -> None:
        self._node = node
        self._caller = Caller(node)

    def routes(self) -> list[contract.Route]:
        caller = self._caller
        return [
            contract.Route(
                methods=frozenset({"POST"}),
                path="/functions/*/call",
                answer=caller.answer,
                refuse=caller.refuse,
            ),
            contract.Route(
                methods=frozenset({"GET", "HEAD"}), path="/health", answer=self._health, refuse=caller.refuse
            ),
        ]

    def handlers(self) -> list[Any]:
        from stoker.doors.functions.api import router

        return [router(self._node)]

    def unknown_path(self, method: str, path: str) -> tuple[int, bytes] | None:
        """Only what begins like a path of this door is its to answer."""
        parts = path[1:].split("/")
        if f"/{parts[0]}" not in METHODS:
            return None
        allowed = METHODS.get("/" + "/".join(["*" if at == 1 else part for at, part in enumerate(parts)]))
        if allowed and all(parts):
            return 405, replies.fault("method_not_allowed", f"{path} takes {allowed}, not {method}")
        return 404, replies.fault("not_found", f"no such path {path!r}; there are {', '.join(METHODS)}")

    def _health(self, exchange: Exchange) -> None:
        """Looks at nothing but the gate: also the null call that speed is compared with."""
        if self._node.is_draining:
            self._caller.refuse(exchange, Draining())
        else:
            exchange.reply(200, HEALTHY_HEAD, HEALTHY)
