"""What the kernel counts of a group of processes, by the files of both versions of cgroups."""

from __future__ import annotations

import os
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
OOM_KILLS, FORKS_REFUSED, MEMORY_PEAK, CPU = range(4)
"""Places in `Counts` and in the counters."""


class Gauges:
    """A group's counters, each kept open once it was read: a second look costs one `pread`."""

    def __init__(self, places: list[tuple[str | None, Counter]]) -> None:
        self._places = places
        self._open: dict[int, int] = {}

    def __repr__(self) -> str:
        folders = sorted({folder or "nowhere" for folder, _ in self._places})
        return f"<Gauges of {', '.join(folders)}, {len(self._open)} open>"

    def read(self, which: int) -> int | None:
        """One counter; None when the machine does not count it, or the group has gone."""
        folder, counter = self._places[which]
        if folder is None:
            return None
        try:
            if which not in self._open:
                self._open[which] = os.open(f"{folder}/{counter.file}", os.O_RDONLY)
            text = os.pread(self._open[which], 4096, 0).decode()
        except OSError:
            return None
        number = _field(text, counter.field) if counter.field else int(text)
        return None if number is None else number * counter.unit

    def close(self) -> None:
        """Idempotent."""
        while self._open:
            os.close(self._open.popitem()[1])


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None
