"""Which idle sandboxes go first when room is needed: pure functions over what is idle."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Idle(msgspec.Struct, frozen=True):
    """One idle sandbox, as far as this decision goes."""

    sandbox: int
    idle_since: float
    memory_mb: int


def longest_idle(idle: Iterable[Idle], missing_mb: int) -> list[int]:
    """Those idle longest whose memory together reaches `missing_mb`; none when all do not reach it."""
    victims: list[int] = []
    for candidate in sorted(idle, key=lambda one: (one.idle_since, one.sandbox)):
        if missing_mb <= 0:
            break
        victims.append(candidate.sandbox)
        missing_mb -= candidate.memory_mb
    return victims if missing_mb <= 0 else []
