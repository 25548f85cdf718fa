"""What a node decides about its lean sandboxes."""

from __future__ import annotations

import os
from typing import Protocol

import msgspec

# Above what systemd gives to containers, below what some programs read as a negative number.
UID_FIRST, UID_RANGES, UID_RANGE = 0x7000_0000, 4095, 0x1_0000


class HasNodeId(Protocol):
    """The part of the node's settings that is needed here."""

    @property
    def node_id(self) -> str: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node decides about its lean sandboxes."""

    node_id: str = msgspec.field(default_factory=lambda: f"pid{os.getpid()}")
    """In every name that is made on the host; one helper at a time for each id."""
    uid_base: int | None = None
    """The first of 65,536 user ids, one for each sandbox; None: a range chosen by the node's id."""
    cgroup_parent: str = ""
    """The group below which ours are made, for example a delegated one; empty: the root of each tree."""

    spares: int = 2
    """How many sandboxes of each launch in use wait, walled in and started, for whoever comes next."""
    eager: int = 1
    """How many launches, the first ones given, have their zygote started with the node."""

    @classmethod
    def of(cls, settings: HasNodeId) -> Settings:
        """What the node's own settings say."""
        return cls(node_id=settings.node_id)

    @property
    def first_uid(self) -> int:
        if self.uid_base is not None:
            return self.uid_base
        spread = int.from_bytes(self.node_id.encode(), "big") % UID_RANGES
        return UID_FIRST + spread * UID_RANGE
