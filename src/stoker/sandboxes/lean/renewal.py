"""When the interpreter that a launch's sandboxes are forked from is to be started anew.

Theory. All of them have its secret of `hash()`. Whoever has learned it, in a sandbox of his own, can use it
against others for as long as sandboxes are forked from the same start of it: that is bounded. Its age begins
with the first sandbox of somebody's: before, nobody can have learned anything. Knows no clock and no I/O.
"""

from __future__ import annotations

import math

PATIENCE_S = 60.0
"""A start that takes longer is given up, and another one begun."""
LATEST = 1.25
"""So many times the age at which it is due, it is started anew however busy the node is."""
PAUSES_S = (10.0, 40.0, 160.0, 640.0)
"""After a start that failed; the last one again and again."""


class Age:
    """Of what one launch's sandboxes are forked from."""

    def __init__(self, lineage: int) -> None:
        self.lineage = lineage
        self.since = math.inf
        self.again_at = -math.inf
        self.failures = 0


class Renewal:
    """Knows of each launch since when its newest lineage is in use. `after_s` None: none is ever renewed."""

    def __init__(self, after_s: float | None) -> None:
        self._after_s = math.inf if after_s is None else after_s
        self._ages: dict[int, Age] = {}

    def __repr__(self) -> str:
        return f"<Renewal after {self._after_s:g} s of {len(self._ages)} launches>"

    def made(self, launch: int, lineage: int, now: float) -> None:
        """Somebody has a sandbox of that lineage."""
        age = self._ages.get(launch)
        if age is None or lineage > age.lineage:
            age = self._ages[launch] = Age(lineage)
        if lineage == age.lineage and age.since > now:
            age.since = now

    def due(self, now: float, is_busy: bool) -> list[int]:
        """The lineages to be followed by others; while somebody waits for a sandbox only what is overdue."""
        after_s = self._after_s * (LATEST if is_busy else 1)
        ages = [age for age in self._ages.values() if now - age.since >= after_s and now >= age.again_at]
        for age in ages:
            age.again_at = now + PATIENCE_S
        return [age.lineage for age in ages]

    def failed(self, launch: int, now: float) -> float:
        """It did not come up; returns after how long it is tried again."""
        age = self._ages.get(launch)
        if age is None:
            return math.inf  # it is gone anyway, with the helper that it was asked of
        age.failures += 1
        pause_s = PAUSES_S[min(age.failures, len(PAUSES_S)) - 1]
        age.again_at = now + pause_s
        return pause_s

    def renewed(self, launch: int, lineage: int) -> None:
        """That is its newest lineage now, and nobody has a sandbox of it yet."""
        self._ages[launch] = Age(lineage)

    def lost(self) -> list[int]:
        """No zygote is there any more; returns the lineages that were the newest."""
        ages, self._ages = self._ages, {}
        return [age.lineage for age in ages.values()]
