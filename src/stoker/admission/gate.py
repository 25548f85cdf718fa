"""Counts who is inside and turns away who would be too many.

HOLDS (invariant 2): tickets out never exceed the caps; each comes back exactly once; after `drain()`
none is issued, and `drained()` ends when the last is back.
"""

from __future__ import annotations

import asyncio

from stoker.errors import Draining, TooBusy

RETRY_AFTER_S = 1


class Ticket:
    """The right to be inside; given back once."""

    __slots__ = ("_gate", "function")

    def __init__(self, gate: Gate, function: str) -> None:
        self._gate: Gate | None = gate
        self.function = function

    def __repr__(self) -> str:
        return f"<Ticket {self.function} {'out' if self._gate else 'back'}>"

    def give_back(self) -> None:
        """A second time is a mistake of ours and does nothing."""
        if self._gate is not None:
            gate, self._gate = self._gate, None
            gate.take_back(self.function)


class Gate:
    """Who is inside the node, waiting included, in all and for each function."""

    def __init__(self, max_calls: int, max_calls_per_function: int) -> None:
        self._max_calls = max_calls
        self._max_each = max_calls_per_function
        self._inside = 0
        self._inside_of: dict[str, int] = {}
        self._is_draining = False
        self._emptied = asyncio.Event()
        self.refused = 0

    def __repr__(self) -> str:
        state = "draining" if self._is_draining else "open"
        return f"<Gate {state}, {self._inside} of {self._max_calls} inside>"

    @property
    def inside(self) -> int:
        return self._inside

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def admit(self, function: str) -> Ticket:
        """Raises `Draining`, `TooBusy`."""
        if self._is_draining:
            raise Draining()
        of_function = self._inside_of.get(function, 0)
        if self._inside >= self._max_calls:
            self._refuse(f"{self._inside} calls are inside this node already, which is all it takes")
        if of_function >= self._max_each:
            self._refuse(f"{of_function} calls of {function!r} are inside already, which is all it may have")
        self._inside += 1
        self._inside_of[function] = of_function + 1
        return Ticket(self, function)

    def _refuse(self, message: str) -> None:
        self.refused += 1
        raise TooBusy(f"{message}; try again in {RETRY_AFTER_S} s", RETRY_AFTER_S)

    def take_back(self, function: str) -> None:
        """Called by the ticket alone."""
        self._inside -= 1
        left = self._inside_of[function] - 1
        if left:
            self._inside_of[function] = left
        else:
            del self._inside_of[function]
        if self._inside == 0 and self._is_draining:
            self._emptied.set()

    def drain(self) -> None:
        """Let nobody in any more."""
        self._is_draining = True

    async def drained(self) -> None:
        """Return when nobody is inside. HOLDS: `drain()` was called."""
        while self._inside:
            self._emptied.clear()
            await self._emptied.wait()
