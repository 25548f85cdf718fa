"""What the node allows a package and a function: the settings this room needs, by their own names."""

from __future__ import annotations

import msgspec

from stoker.types import MEBIBYTE, Limits, Network

DEPENDENCY_MEMBERS = 10
"""Files a finished build may hold, as a multiple of `max_members`: numpy, scipy and pandas hold 9,000."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the node's settings; each field is the setting of the same name."""

    default_memory_mb: int = 128
    default_timeout_s: float = 30.0
    default_cpu_time_s: float | None = None
    default_cpus: float = 1.0
    default_pids: int = 64
    default_scratch_mb: int = 64
    memory_mb: int | None = None
    max_memory_mb: int | None = None
    max_timeout_s: float = 900.0
    build_timeout_s: float = 300.0
    build_memory_mb: int = 2048
    build_size_mb: int = 2048
    builds_at_once: int = 2
    build_network: Network = Network.HOST
    max_package_mb: int = 256
    max_unpacked_mb: int = 1024
    max_members: int = 20_000

    @property
    def max_package_bytes(self) -> int:
        return self.max_package_mb * MEBIBYTE

    @property
    def max_cpu_time_s(self) -> float:
        """What a call can use at most within the longest wall time."""
        return self.max_timeout_s * max(1.0, self.default_cpus)

    @property
    def build_size_bytes(self) -> int:
        return self.build_size_mb * MEBIBYTE

    @property
    def build_members(self) -> int:
        return self.max_members * DEPENDENCY_MEMBERS

    def limits(self) -> Limits:
        """What a function gets that asks for nothing."""
        return Limits(
            memory_mb=self.default_memory_mb,
            timeout_s=self.default_timeout_s,
            cpu_s=self.default_cpu_time_s,
            cpus=self.default_cpus,
            pids=self.default_pids,
            scratch_mb=self.default_scratch_mb,
        )

    def build_limits(self, timeout_s: float) -> Limits:
        """What one step of a build gets."""
        return Limits(
            memory_mb=self.build_memory_mb,
            timeout_s=max(timeout_s, 0.001),
            cpus=2.0,
            pids=512,
            scratch_mb=256,
            scratch_inodes=65_536,
        )
