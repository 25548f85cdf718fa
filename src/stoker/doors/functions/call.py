"""`POST /functions/{id or name}/call`: a call without ASGI and without a task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stoker.doors import explanation
from stoker.doors.contract import Call
from stoker.doors.exchange import Exchange
from stoker.doors.functions import replies
from stoker.doors.functions.fields import is_id
from stoker.doors.refusals import Refusals
from stoker.errors import NodeError
from stoker.types import Invocation, Outcome, Reuse, Status

if TYPE_CHECKING:
    from stoker.node import Node

CATALOG = "functions"
EMPTY_EVENT = b"{}"
_BEFORE = len("/functions/")
_AFTER = -len("/call")


class Caller:
    """The fast route of the Functions door."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._patience_s = node.settings.call_patience_s
        self._refusals = Refusals(node.new_id, replies.status_of, replies.error_body)
        self._resolving: set[asyncio.Task[None]] = set()

    def answer(self, exchange: Exchange) -> None:
        """Start the call that this request asks for; it replies when it settles."""
        request = exchange.request
        if not request.function:
            ref = request.path[_BEFORE:_AFTER]
            if is_id(ref):
                self._resolve(exchange, ref)
                return
            request.function = f"{CATALOG}/{ref}"
        self._start(exchange, request.function)

    def _resolve(self, exchange: Exchange, ref: str) -> None:
        task = asyncio.get_running_loop().create_task(self._answer_by_id(exchange, ref))
        exchange.on_left = task.cancel
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _answer_by_id(self, exchange: Exchange, ref: str) -> None:
        """An id costs a look into the records; a name costs nothing."""
        try:
            name = (await self._node.functions.get(ref)).name
        except NodeError as error:
            self.refuse(exchange, error)
        else:
            self._start(exchange, f"{CATALOG}/{name}")

    def _start(self, exchange: Exchange, function: str) -> None:
        try:
            ticket = self._node.admit(function, exchange.received)
        except NodeError as refusal:
            self._refusals.tell(exchange, refusal)
            return
        invocation = Invocation(
            id=self._node.new_id(),
            function=function,
            body=exchange.body or EMPTY_EVENT,
            door="functions",
            deadline=exchange.received + self._patience_s,
            reuse=Reuse.PROCESS,
        )
        exchange.on_left = self._node.call(invocation, ticket, self._settle, exchange).leave

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Say why there is no call."""
        head = explanation.lines(explanation.error_headers(error))
        exchange.reply(replies.status_of(error), head, replies.error_body(error))

    @staticmethod
    def _settle(call: Call, end: Outcome | NodeError) -> None:
        exchange: Exchange = call.caller
        if isinstance(end, NodeError):
            head = explanation.lines(explanation.error_headers(end, call.invocation.id, call.phases))
            exchange.reply(replies.status_of(end), head, replies.error_body(end))
        elif end.status is Status.OK:
            exchange.reply(200, explanation.outcome_lines(end), end.result or b"null")
        else:
            exchange.reply(replies.outcome_status(end), explanation.outcome_lines(end), replies.failure(end))
