"""`/execute`: a call, from its bytes to the reply, without ASGI and without a task."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from stoker.doors import explanation
from stoker.doors.contract import Call
from stoker.doors.exchange import Exchange
from stoker.doors.refusals import Refusals
from stoker.doors.worker_front import replies
from stoker.doors.worker_front.knobs import Knobs
from stoker.errors import BadRequest, NodeError, NoSuchFunction
from stoker.types import Invocation, Outcome, Reuse, Status

if TYPE_CHECKING:
    from stoker.node import Node

CATALOG = "front"
BEFORE = f"{CATALOG}/"
EMPTY_EVENT = b"{}"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# Raw: walks over the event and checks it, without making a single object of it (0.1 us for 20 bytes).
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Execute:
    """The fast route of the Worker Front door."""

    def __init__(self, node: Node, knobs: Knobs) -> None:
        self._node = node
        self._knobs = knobs
        self._patience_s = node.settings.call_patience_s
        self._refusals = Refusals(node.new_id, replies.status_of, replies.error_body)

    def answer(self, exchange: Exchange) -> None:
        """Start the call that this request asks for; it replies when it settles."""
        request = exchange.request
        try:
            if not request.function:
                request.function = f"{CATALOG}/{function_name(request.query)}"
            body = event(request.method, exchange.body)
        except NodeError as error:
            self.refuse(exchange, error)
            return
        function = request.function
        try:
            ticket = self._node.admit(function, exchange.received)
        except NodeError as refusal:
            self._refusals.tell(exchange, refusal)
            return
        state = self._knobs.state
        invocation = Invocation(
            id=self._node.new_id(),
            function=function,
            body=body,
            door="worker_front",
            deadline=exchange.received + self._patience_s,
            reuse=Reuse.SANDBOX if state.using_rest_mode else Reuse.NONE,
            keep_s=float(state.rest_container_life_time) if state.using_rest_mode else None,
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
            return
        head = explanation.outcome_lines(end)
        if end.status is Status.OK:
            took_ms = int((time.monotonic() - exchange.received) * 1000)
            name = call.invocation.function.removeprefix(BEFORE)
            exchange.reply(200, head, replies.success(end, name, took_ms))
        else:
            exchange.reply(replies.FAILED, head, replies.failure(explanation.failure_line(end)))


def function_name(query: bytes) -> str:
    """The value of `name`; other parameters are ignored, a repeated name must say the same.

    Raises `BadRequest`, and `NoSuchFunction` for a name that no function can have.
    """
    value = query[5:]
    is_plain = query.startswith(b"name=") and value.isalnum()
    name = value.decode() if is_plain else _only_name(query)
    if not _NAME.fullmatch(name):
        raise NoSuchFunction(f"no such function {name[:100]!r}: names are letters, digits, '_', '.' and '-'")
    return name


def _only_name(query: bytes) -> str:
    pairs = parse_qsl(query.decode("latin-1"), errors="replace")
    names = {value for key, value in pairs if key == "name"}
    if not names:
        raise NoSuchFunction("param 'name' is not given")
    if len(names) > 1:
        raise BadRequest(f"param 'name' is given {len(names)} different values")
    return names.pop()


def event(method: str, body: bytes) -> bytes:
    """The event of this request: a POST's body, `{}` when there is none.

    Raises `BadRequest` when it is not JSON. Checked here rather than inside, so that a typing error
    costs no sandbox.
    """
    if method != "POST" or not body or body.isspace():
        return EMPTY_EVENT
    try:
        _check_json(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
    except RecursionError:
        raise BadRequest("the body is nested too deep") from None
    return body
