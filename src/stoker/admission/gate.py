"""Counts who is inside, turns away who would be too many, and says when to come back.

Theory. Besides the two caps, a function may have no more than `FAIR` times as many calls inside as places
are left for everybody. One that floods an empty node gets most of it; each further one that floods makes
all of them smaller, and there is always a place left for one that comes new. Source: dynamic thresholds
of Choudhury and Hahne (1998), which share the buffer of a switch among its ports in this way.

HOLDS (invariant 2): tickets out never exceed the caps; each comes back exactly once; after `drain()`
none is issued, and `drained()` ends when the last is back.
"""

from __future__ import annotations

import asyncio
import math

from stoker.errors import Draining, TooBusy

FAIR = 4
RATE_S = 1.0
"""Over at least this long it is counted how many calls end in a second."""
LONGEST_RETRY_S = 60
"""Where nothing ends, nobody knows when it will."""
SAID_S = 0.005
"""So long everybody who is turned away is told the same, by one and the same error."""


class Flow:
    """Calls of one function, or of all: how many are inside and how fast they leave."""

    __slots__ = ("_marked_at", "_marked_left", "_rate", "inside", "left", "name", "said", "said_at")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.inside = 0
        self.left = 0
        """How many have left so far."""
        self._marked_at = now
        self._marked_left = 0
        self._rate = 0.0
        self.said: TooBusy | None = None
        self.said_at = now

    def __repr__(self) -> str:
        return f"<Flow {self.name} {self.inside} inside, {self.left} left>"

    def retry_s(self, now: float) -> int:
        """In how many seconds those inside will have left, if they go on as in the last second or longer."""
        passed_s = now - self._marked_at
        if passed_s >= RATE_S:
            self._rate = (self.left - self._marked_left) / passed_s
            self._marked_at, self._marked_left = now, self.left
        elif not self._rate:
            return 1 if passed_s <= 0 else self._bounded(self.left / passed_s, 1)
        return self._bounded(self._rate, LONGEST_RETRY_S)

    def _bounded(self, rate: float, unknown_s: int) -> int:
        if not rate:
            return unknown_s
        return min(max(1, math.ceil(self.inside / rate)), LONGEST_RETRY_S)


class Ticket:
    """The right to be inside; given back once."""

    __slots__ = ("_flow", "_gate")

    def __init__(self, gate: Gate, flow: Flow) -> None:
        self._gate = gate
        self._flow: Flow | None = flow

    def __repr__(self) -> str:
        return f"<Ticket {self._flow.name} out>" if self._flow else "<Ticket back>"

    @property
    def is_out(self) -> bool:
        return self._flow is not None

    def give_back(self) -> None:
        """A second time is a mistake of ours and does nothing."""
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.left += 1
            flow.inside -= 1
            everybody = self._gate.everybody
            everybody.left += 1
            everybody.inside -= 1
            if flow.inside == 0:
                self._gate.emptied(flow)


class Gate:
    """Who is inside the node, waiting included, in all and for each function."""

    def __init__(self, max_calls: int, max_calls_per_function: int) -> None:
        self._max_calls = max_calls
        self._max_each = max_calls_per_function
        self.everybody = Flow("all", -math.inf)
        self._flows: dict[str, Flow] = {}
        self._is_draining = False
        self._emptied = asyncio.Event()

    def __repr__(self) -> str:
        state = "draining" if self._is_draining else "open"
        return f"<Gate {state}, {self.inside} of {self._max_calls} inside>"

    @property
    def inside(self) -> int:
        return self.everybody.inside

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def admit(self, function: str, now: float) -> Ticket:
        """Raises `Draining`, `TooBusy`."""
        if self._is_draining:
            raise Draining()
        everybody = self.everybody
        free = self._max_calls - everybody.inside
        flow = self._flows.get(function)
        if flow is None:
            if free <= 0:
                raise self._too_busy(everybody, now)
            flow = self._flows[function] = Flow(function, now)
        elif flow.inside >= self._max_each or flow.inside >= FAIR * free:
            raise self._too_busy(flow, now)
        flow.inside += 1
        everybody.inside += 1
        return Ticket(self, flow)

    def _too_busy(self, flow: Flow, now: float) -> TooBusy:
        said = flow.said
        if said is None or now - flow.said_at >= SAID_S:
            said = flow.said = self._say(flow, now)
            flow.said_at = now
        # Without the frames that it was raised through before: they would grow, and hold what is in them.
        return said.with_traceback(None)

    def _say(self, flow: Flow, now: float) -> TooBusy:
        retry_s = flow.retry_s(now)
        what = f"{flow.inside} calls are inside this node already"
        if flow is not self.everybody:
            free = self._max_calls - self.everybody.inside
            what = (
                f"{flow.inside} calls of {flow.name!r} are inside already, "
                f"and {free} places are left for all functions"
            )
        return TooBusy(f"{what}; try again in {retry_s} s", retry_s)

    def emptied(self, flow: Flow) -> None:
        """Its last ticket is back; called by that alone."""
        del self._flows[flow.name]
        if self.everybody.inside == 0 and self._is_draining:
            self._emptied.set()

    def drain(self) -> None:
        """Let nobody in any more."""
        self._is_draining = True

    async def drained(self) -> None:
        """Return when nobody is inside. HOLDS: `drain()` was called."""
        while self.inside:
            self._emptied.clear()
            await self._emptied.wait()
