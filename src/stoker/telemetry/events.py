"""How rooms tell what happened without knowing who listens (invariant 9).

An event is a frozen struct in the past tense whose fields are small facts: names, counts, times,
never a payload. Who wants to hear is given to `Events` by the node, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened. Rooms define their own: `class SandboxReady(Event)`."""

    level: ClassVar[str] = "debug"
    """Of the log line, if it becomes one."""


Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener, at once and in order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self.lost = 0
        """Deliveries that failed inside a listener."""

    def __repr__(self) -> str:
        return f"<Events {len(self._listeners)} listeners, {self.lost} lost>"

    def emit(self, event: Event) -> None:
        """Never waits and never raises: what a listener does wrong is counted and is no caller's concern."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                self.lost += 1
