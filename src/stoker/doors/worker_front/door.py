"""The Worker Front door: what existing load balancers and simulators speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from stoker.doors import contract
from stoker.doors.worker_front.execute import Execute
from stoker.doors.worker_front.knobs import Knobs, State, whole_if_it_is
from stoker.doors.worker_front.replies import failure

if TYPE_CHECKING:
    from stoker.node import Node

CALL_METHODS = frozenset({"GET", "POST"})
METHODS = {"/execute": "GET and POST", "/configure": "GET", "/clear": "GET", "/prepare": "GET"}


class WorkerFront(contract.Door):
    """`/execute` on the fast route, the rest as ordinary handlers; owns the knobs."""

    name: ClassVar[str] = "worker_front"

    def __init__(self, node: Node) -> None:
        self._node = node
        self._knobs = Knobs(_first_state(node), self._apply)
        self._execute = Execute(node, self._knobs)

    def routes(self) -> list[contract.Route]:
        answer, refuse = self._execute.answer, self._execute.refuse
        return [
            contract.Route(methods=CALL_METHODS, path=path, answer=answer, refuse=refuse)
            for path in ("/execute", "/execute/")
        ]

    def handlers(self) -> list[Any]:
        from stoker.doors.worker_front.control import router

        return [router(self._node, self._knobs)]

    def unknown_path(self, method: str, path: str) -> tuple[int, bytes] | None:
        """This protocol has a shape for any path that is nobody else's."""
        allowed = METHODS.get(path.rstrip("/"))
        if allowed:
            return 405, failure(f"{path} takes {allowed}, not {method}")
        return 404, failure(f"no such path {path!r}; there are {', '.join(METHODS)}")

    async def open(self) -> None:
        state = self._knobs.state
        self._node.pool.set_prewarm(state.container_pool_limit, state.container_pool_num)

    def _apply(self, state: State) -> None:
        """The rest mode's two knobs need nothing: every call reads them."""
        self._node.code.set_limit(state.user_code_size_limit)
        self._node.pool.set_prewarm(state.container_pool_limit, state.container_pool_num)


def _first_state(node: Node) -> State:
    settings = node.settings
    return State(
        user_code_size_limit=settings.code_size_limit_bytes,
        container_pool_limit=settings.pool_limit,
        container_pool_num=settings.pool_num,
        using_rest_mode=settings.rest_mode,
        rest_container_life_time=whole_if_it_is(settings.rest_life_s),
    )
