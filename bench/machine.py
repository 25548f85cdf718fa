"""What the machine was doing meanwhile: numbers without it mean nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """What the numbers were measured on."""

    kernel: str
    cpus: int
    cpu: str
    memory_mb: int
    python: str


class Noise(msgspec.Struct, frozen=True):
    """What disturbed the run."""

    load: float
    steal_percent: float
    cpu_pressure_percent: float | None
    """Share of time in which somebody waited for a processor; None where the kernel does not tell."""


def describe() -> Machine:
    said = (line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    models = [value.strip() for key, value in said if key.strip() == "model name"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    cpus = len(os.sched_getaffinity(0))
    return Machine(platform.release(), cpus, models[0] if models else "", memory, platform.python_version())


class Listening:
    """Hears what disturbs from its making to `stop`."""

    def __init__(self) -> None:
        self._ticks = _ticks()
        self._waited_us = _waited_us()
        self._began = os.times().elapsed

    def stop(self) -> Noise:
        ticks = [after - before for before, after in zip(self._ticks, _ticks(), strict=True)]
        steal = 100 * ticks[7] / max(1, sum(ticks[:8]))
        waited = _waited_us()
        pressure = None
        if waited is not None and self._waited_us is not None:
            pressure = round(
                (waited - self._waited_us) / 1e4 / max(0.001, os.times().elapsed - self._began), 1
            )
        return Noise(round(os.getloadavg()[0], 2), round(steal, 2), pressure)


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]


def _waited_us() -> int | None:
    try:
        return int(Path("/proc/pressure/cpu").read_text().splitlines()[0].rpartition("total=")[2])
    except OSError:
        return None


def cpu_ns(root: int) -> int:
    """CPU time so far of a process and of everything below it, what has ended and was waited for included."""
    total, todo = 0, [root]
    while todo:
        folder = Path(f"/proc/{todo.pop()}")
        total += _of_the_dead_ns(folder)
        for task in _listed(folder / "task"):
            total += int((_text(task / "schedstat") or "0").split()[0])
            todo += [int(pid) for pid in _text(task / "children").split()]
    return total


def _of_the_dead_ns(process: Path) -> int:
    """To a tick of the clock, that is a hundredth of a second."""
    words = _text(process / "stat").rpartition(")")[2].split()
    return sum(map(int, words[13:15])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
