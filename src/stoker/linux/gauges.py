"""What the kernel counts of a group of processes, by the files of both versions of cgroups."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Counts(NamedTuple):
    """What a group has used and met; None where the machine does not count it."""

    oom_kills: int | None = None
    forks_refused: int | None = None
    memory_peak_bytes: int | None = None
    cpu_ns: int | None = None

    def filled_up(self, oom_kills: int, memory_peak_bytes: int, cpu_ns: int) -> Counts:
        """With what was found out in other ways where the machine does not count."""
        return self._replace(
            oom_kills=oom_kills if self.oom_kills is None else self.oom_kills,
            memory_peak_bytes=memory_peak_bytes if self.memory_peak_bytes is None else self.memory_peak_bytes,
            cpu_ns=cpu_ns if self.cpu_ns is None else self.cpu_ns,
        )


class Counter(NamedTuple):
    """Where one of the `Counts` stands; without a field the file is the number."""

    controller: str
    file: str
    field: str = ""
    unit: int = 1


COUNTERS_V1 = (
    Counter("memory", "memory.oom_control", "oom_kill"),
    Counter("pids", "pids.events", "max"),  # Linux 4.8
    Counter("memory", "memory.max_usage_in_bytes"),
    Counter("cpuacct", "cpuacct.usage"),
)
COUNTERS_V2 = (
    Counter("memory", "memory.events", "oom_kill"),
    Counter("pids", "pids.events", "max"),
    Counter("memory", "memory.peak"),  # Linux 5.19
    Counter("cpu", "cpu.stat", "usage_usec", 1000),
)
NONE: Mapping[int, int] = MappingProxyType({})
OOM_KILLS, FORKS_REFUSED, MEMORY_PEAK, CPU = range(4)
"""Places in `Counts` and in the counters."""


class Gauges:
    """A group's counters, each open: a look costs one `pread`, also of who was given the descriptors."""

    def __init__(
        self, counters: tuple[Counter, ...], opened: dict[int, int], lent: Mapping[int, int] = NONE
    ) -> None:
        """Descriptors of some of the counters, by their place; `opened` are ours from here on."""
        self._counters = counters
        self.opened = opened
        self._all = {**opened, **lent}

    def __repr__(self) -> str:
        return f"<Gauges, {len(self._all)} open>"

    def add(self, which: int, path: str) -> None:
        self._all[which] = self.opened[which] = os.open(path, os.O_RDONLY)

    def told(self) -> tuple[int, tuple[int, ...]]:
        """Which there are, a bit for each, and their descriptors in order."""
        places = sorted(self._all)
        return sum(1 << place for place in places), tuple(self._all[place] for place in places)

    @classmethod
    def of(cls, counters: tuple[Counter, ...], which: int, descriptors: list[int]) -> Gauges:
        """As they were `told`."""
        there = [place for place in range(len(counters)) if which >> place & 1]
        return cls(counters, dict(zip(there, descriptors, strict=True)))

    def read(self, which: int) -> int | None:
        """One counter; None when the machine does not count it, or the group has gone."""
        descriptor = self._all.get(which)
        if descriptor is None:
            return None
        try:
            text = os.pread(descriptor, 4096, 0).decode()
        except OSError:
            return None
        counter = self._counters[which]
        number = _field(text, counter.field) if counter.field else int(text)
        return None if number is None else number * counter.unit

    def counts(self) -> Counts:
        return Counts(*(self.read(which) for which in range(len(Counts._fields))))

    def close(self) -> None:
        """Idempotent."""
        self._all.clear()
        while self.opened:
            os.close(self.opened.popitem()[1])


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None
