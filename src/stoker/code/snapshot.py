"""What the cache of prepared code tells of itself."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """What a snapshot tells of one folder."""

    key: str
    digest: str
    size_bytes: int
    pins: int
    is_current: bool


class Snapshot(msgspec.Struct, frozen=True):
    """The cache at one moment."""

    size_bytes: int
    limit_bytes: int
    fetching: tuple[str, ...]
    entries: tuple[Entry, ...]
