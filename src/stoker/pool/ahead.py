"""Which groups have sandboxes before a call comes, and how long one is worth its room without any."""

from __future__ import annotations

from collections.abc import Iterable

from stoker.pool.events import PrewarmChanged
from stoker.pool.groups import NEVER, Entry, Group
from stoker.pool.keeping import Policy
from stoker.types import Reuse


def prewarmed(groups: Iterable[Group], prewarm: PrewarmChanged) -> list[Group]:
    """The most recently used, as many as was asked for."""
    if prewarm.functions <= 0 or prewarm.each <= 0:
        return []
    candidates = [group for group in groups if group.need.reuse is Reuse.NONE and group.last_asked != NEVER]
    candidates.sort(key=lambda group: group.last_asked, reverse=True)
    return candidates[: prewarm.functions]


def is_over(entry: Entry, now: float, policy: Policy, keep_s: float) -> bool:
    """Whether an idle one is not worth its room any more."""
    if entry.need.keep_s is not None:
        return now - entry.idle_since >= entry.need.keep_s
    opens_s, closes_s = policy.window(entry.group.habit)
    was_wanted = entry.served or entry.waited_for
    pause_s = now - (entry.idle_since if was_wanted else entry.group.moved_at)
    return pause_s < opens_s or pause_s >= min(closes_s, keep_s)
