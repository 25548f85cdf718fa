"""The helper's loop: one thread that waits for descriptors and calls whoever watches them."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

QUIET_S = 0.001  # without an event for so long, the helper has time for what nobody waits for


class Loop:
    """Calls back, one after another; nothing called may wait for a sandbox."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Callable[[], object]] = {}
        self._is_over = False
        self._every_s: float | None = None
        self._next = 0.0
        self._tick: Callable[[], object] = self.stop

    def __repr__(self) -> str:
        return f"<Loop {len(self._watchers)} watched>"

    def watch(self, descriptor: int, call: Callable[[], object]) -> None:
        """Call whenever `descriptor` has something to read or has reached its end."""
        self._watchers[descriptor] = call
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """HOLDS: before the descriptor is closed, or its number would be another's."""
        del self._watchers[descriptor]
        self._epoll.unregister(descriptor)

    def tick(self, every_s: float | None, call: Callable[[], object]) -> None:
        """Call again and again, as often as there is time for it; None: no more."""
        self._every_s, self._tick = every_s, call
        self._next = time.monotonic()

    def stop(self) -> None:
        self._is_over = True

    def run(self, when_quiet: Callable[[], bool], is_pressed: Callable[[], bool]) -> None:
        """Until `stop`. `when_quiet` does one thing and says whether there may be another to do.

        While it `is_pressed` to do it, no event at all is quiet enough.
        """
        has_more = True
        while not self._is_over:
            quiet_s = 0.0 if has_more and is_pressed() else QUIET_S
            events = self._epoll.poll(quiet_s if has_more else self._every_s)
            if self._every_s is not None and time.monotonic() >= self._next:
                self._tick()
                self._next = time.monotonic() + (self._every_s or 0.0)
            for descriptor, _ in events:
                watcher = self._watchers.get(descriptor)  # None: gone since an earlier call of this round
                if watcher is not None:
                    watcher()
            has_more = True if events else when_quiet()
