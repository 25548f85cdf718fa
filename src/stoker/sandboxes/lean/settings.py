"""What a node decides about its lean sandboxes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.egress import read_servers
from stoker.types import MEBIBYTE

RESOLV_CONF = Path("/etc/resolv.conf")
RAM_SHARE = 0.95
# Above what systemd gives to containers, below what some programs read as a negative number.
UID_FIRST, UID_RANGES, UID_RANGE = 0x7000_0000, 4095, 0x1_0000


class HasNodeId(Protocol):
    """The part of the node's settings that is needed here."""

    @property
    def node_id(self) -> str: ...
    @property
    def egress_private(self) -> str: ...
    @property
    def dns_servers(self) -> str: ...
    @property
    def cgroup_parent(self) -> str: ...
    @property
    def spares(self) -> int: ...
    @property
    def renew_s(self) -> float | None: ...
    @property
    def memory_mb(self) -> int | None: ...
    @property
    def build_memory_mb(self) -> int: ...
    @property
    def builds_at_once(self) -> int: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node decides about its lean sandboxes."""

    node_id: str = msgspec.field(default_factory=lambda: f"pid{os.getpid()}")
    """In every name that is made on the host; one helper at a time for each id."""
    uid_base: int | None = None
    """The first of 65,536 user ids, one for each sandbox; None: a range chosen by the node's id."""
    cgroup_parent: str = ""
    """The group below which ours are made; empty: the first of each tree for root, else the one we are in."""

    egress_private: str = ""
    """The private networks that sandboxes with egress may reach."""
    dns_servers: str = ""
    """Where their names are asked for; empty: where the host asks."""
    memory_mb: int | None = None
    """What all sandboxes together may hold, builds and spares included; None: what each may, added up."""
    spares: int = 2
    """How many sandboxes of each launch in use wait, walled in and started, for whoever comes next, at least;
    more as calls come (`demand`). 0: there are none."""
    renew_s: float | None = 3600.0
    """How long sandboxes are forked from one start of an interpreter; None: as long as it lives."""
    eager: int = 1
    """How many launches, the first ones given, have their zygote started with the node."""

    @classmethod
    def of(cls, settings: HasNodeId) -> Settings:
        """What the node's own settings say."""
        return cls(
            node_id=settings.node_id,
            cgroup_parent=settings.cgroup_parent,
            memory_mb=_most_mb(settings),
            egress_private=settings.egress_private,
            dns_servers=settings.dns_servers,
            spares=settings.spares,
            renew_s=settings.renew_s,
        )

    @property
    def resolver_uid(self) -> int:
        """The user that the resolver becomes: the last of the node's."""
        return self.first_uid + UID_RANGE - 1

    def name_servers(self) -> tuple[tuple[str, int], ...]:
        """Whom the resolver asks: as the settings say, or else the host."""
        return read_servers(self.dns_servers) or _host_servers()

    @property
    def first_uid(self) -> int:
        if self.uid_base is not None:
            return self.uid_base
        spread = int.from_bytes(self.node_id.encode(), "big") % UID_RANGES
        return UID_FIRST + spread * UID_RANGE


def _most_mb(settings: HasNodeId) -> int | None:
    """Functions and builds, and never so much that nothing is left for the machine itself."""
    if settings.memory_mb is None:
        return None
    ram_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEBIBYTE
    return min(
        settings.memory_mb + settings.builds_at_once * settings.build_memory_mb, int(ram_mb * RAM_SHARE)
    )


def _host_servers() -> tuple[tuple[str, int], ...]:
    """Those of its /etc/resolv.conf; as the C library has it, itself where there are none."""
    try:
        lines = RESOLV_CONF.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    found: list[tuple[str, int]] = []
    for word in words:
        if word[:1] == ["nameserver"] and len(word) > 1:
            try:
                found += read_servers(f"[{word[1]}]" if ":" in word[1] else word[1])
            except ValueError:
                continue
    return tuple(found) or (("127.0.0.1", 53),)
