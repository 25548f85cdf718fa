"""Ends calls whose time is up, with one timer for all of them.

A timer for each call costs more than the rest of its bookkeeping; looking at all of them twenty times
a second costs a thousand calls about two milliseconds a second, and ends a call at most `SWEEP_S` late.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

SWEEP_S = 0.05


class Expiring(Protocol):
    """What has a deadline."""

    expires_at: float
    """On the monotonic clock; may be moved while watched."""

    def expire(self) -> None: ...
    def look(self) -> None:
        """Asked for by `look_at`: end if more was used than is allowed."""


class Deadlines:
    """Everything that is being watched, and what of it may use only so much."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: set[Expiring] = set()
        self._looked_at: set[Expiring] = set()
        self.forget = self._watched.discard
        """Watch it no longer; no mistake if it was not. Those looked at go with the next sweep."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Deadlines watching {len(self._watched)}>"

    def watch(self, one: Expiring) -> None:
        self._watched.add(one)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def look_at(self, one: Expiring) -> None:
        """Have it look at what it has used in every sweep. HOLDS: it is watched."""
        self._looked_at.add(one)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now = time.monotonic()
        for one in [one for one in self._watched if one.expires_at <= now]:
            one.expire()
        self._looked_at &= self._watched
        for one in tuple(self._looked_at):
            one.look()
        # An empty sweep ends the timer, so an idle node sleeps; under load it is never re-armed by a call.
        self._timer = self._loop.call_later(SWEEP_S, self._sweep) if self._watched else None
