"""How a door turns away those for whom there is no place now, at as little cost as can be.

Theory. While a flood is turned away each refusal takes the time of calls inside, so nothing is made for it
that a call would need, and what is the same for all is put into words once: the gate raises one and the same
error for a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

from stoker.doors import explanation
from stoker.doors.exchange import Exchange
from stoker.errors import NodeError
from stoker.types import Phases


class Refusals:
    """One door's replies to `Draining` and `TooBusy`."""

    def __init__(
        self,
        new_id: Callable[[], str],
        status_of: Callable[[Exception], int],
        body_of: Callable[[Exception], bytes],
    ) -> None:
        self._new_id = new_id
        self._status_of = status_of
        self._body_of = body_of
        self._error: NodeError | None = None
        self._status = 0
        self._head = b""
        self._body = b""

    def __repr__(self) -> str:
        return f"<Refusals, the last {self._error!r}>"

    def tell(self, exchange: Exchange, error: NodeError) -> None:
        if error is not self._error:
            self._error = error
            self._status, self._body = self._status_of(error), self._body_of(error)
            headers = [*explanation.error_headers(error), (b"server-timing", NO_TIME)]
            self._head = explanation.lines(headers) + b"x-invocation-id: "
        exchange.turn_away(self._status, b"%b%b\r\n" % (self._head, self._new_id().encode()), self._body)


NO_TIME = explanation.timing(Phases())
