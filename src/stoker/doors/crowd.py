"""What is done for all connections: idle ones are closed, those that were turned away heard in turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Final, Protocol

BUSY: Final = math.inf
"""When a connection is idle that is not."""
TURNED_AWAY_EACH_S = 0.0004
"""One that was turned away comes again in every so long: a twentieth of a processor, at 20 us for each."""
TURNED_AWAY_AT_ONCE = 500
"""So many may come together before they have to wait."""
LONGEST_REST_S = 0.5
"""Less than the least that is ever said in Retry-After: who obeys it is never kept waiting."""


class Idler(Protocol):
    """A connection that may be idle."""

    idle_since: float
    timeout_keep_alive: int

    def timeout_keep_alive_handler(self) -> None: ...


class Turned(Protocol):
    """A connection that was turned away."""

    def wake(self) -> None: ...


class Idlers:
    """Closes connections that stay idle after a reply, with one timer for all of them.

    The parent makes a timer for each reply and cancels it for each request that follows; here a
    connection notes a time, and all of them are looked at now and then.
    """

    def __init__(self) -> None:
        self._open: set[Idler] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Idlers among {len(self._open)} connections>"

    def add(self, connection: Idler) -> None:
        self._open.add(connection)
        if self._timer is None:
            self._wait(connection.timeout_keep_alive)

    def discard(self, connection: Idler) -> None:
        self._open.discard(connection)

    def _wait(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(timeout_s / 4, 1.0), self._sweep, timeout_s)

    def _sweep(self, timeout_s: float) -> None:
        self._timer = None
        until = time.monotonic() - timeout_s
        for connection in [one for one in self._open if one.idle_since <= until]:
            connection.timeout_keep_alive_handler()
        if self._open:
            self._wait(timeout_s)


class Rests:
    """Lets connections that were turned away wait their turn before they are read again.

    Theory. A refusal takes processor time from the calls inside, and clients that ask again at once can ask
    for more refusals than there is time. So those who were turned away are read again one after the other,
    at a rate; whoever comes with a request beyond that waits in the socket's buffer, which costs nothing.
    Who was not turned away never waits, nor does who comes back when told to.
    """

    def __init__(self) -> None:
        self._until: deque[tuple[float, Turned]] = deque()
        """In order of time."""
        self._last = 0.0
        """When the last of them is read again."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Rests {len(self._until)} connections>"

    def add(self, connection: Turned, now: float) -> bool:
        """Whether it has to wait; then `wake` is called on it when that is over."""
        earliest = now - TURNED_AWAY_AT_ONCE * TURNED_AWAY_EACH_S
        until = (self._last if self._last > earliest else earliest) + TURNED_AWAY_EACH_S
        self._last = until = min(until, now + LONGEST_REST_S)
        if until <= now:
            return False
        self._until.append((until, connection))
        if self._timer is None:
            self._wait(until - now)
        return True

    def _wait(self, wait_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._until and self._until[0][0] <= now:
            self._until.popleft()[1].wake()
        if self._until and self._timer is None:
            self._wait(self._until[0][0] - now)
