"""When which function is called, and for how long it runs: Azure-shaped arrivals, the same for the same seed.

The models are those of the package `orcbench` (MIT): 25 classes of functions, fitted to the public trace of
Azure Functions. Its own command names functions anew in each run and reads its models in the order of the
folder; here both are fixed, so that a seed is the whole truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import packages
from bench.client import Failed

CPU_S = 0.25
"""The most that a call computes; the rest of its time it sleeps."""
LEAST_RUN_S = 0.001
LONGEST_RUN_S = 60.0
GROUP = 10
"""How many functions share a rhythm; what the package takes by itself."""
SHRINK = 0.25
"""Memory of a sandbox, of what Azure tells of a whole app: an app has several functions."""


class Called(msgspec.Struct, frozen=True):
    """One function of a trace."""

    name: str
    memory_mb: int


class Arrival(msgspec.Struct, frozen=True):
    """One call of it."""

    at_s: float
    function: int
    cpu_s: float
    sleep_s: float

    @property
    def run_s(self) -> float:
        return self.cpu_s + self.sleep_s


class Trace(msgspec.Struct, frozen=True):
    """Calls in the order of their time."""

    functions: tuple[Called, ...]
    arrivals: tuple[Arrival, ...]


def arrivals(seed: int, scale: float, minutes: float) -> Trace:
    """`scale` is the share of the original's functions. Raises `Failed` without the package."""
    functions: list[Called] = []
    calls: list[Arrival] = []
    for job in _jobs(seed, scale):
        numbers = {}
        for key in job.ids:
            numbers[key] = len(functions)
            memory_mb = max(32, round(float(job.memory[key]) * SHRINK))
            functions.append(Called(f"f{len(functions)}", memory_mb))
        for minute, key, run_ms, _ in job.run_trace(minutes):
            run_s = min(max(float(run_ms) / 1000, LEAST_RUN_S), LONGEST_RUN_S)
            cpu_s = min(run_s, CPU_S)
            calls.append(Arrival(float(minute) * 60, numbers[key], cpu_s, run_s - cpu_s))
    calls.sort(key=lambda one: (one.at_s, one.function))
    return Trace(tuple(functions), tuple(calls))


def _jobs(seed: int, scale: float) -> list[Any]:
    packages.show()
    try:
        import numpy
        from orcbench.internals import run
    except ImportError as error:
        raise Failed(f"{error}: scripts/setup --bench installs what the replay needs") from None
    numpy.random.seed(seed)
    folder = Path(run.__file__).parent.parent / "models"
    model: Callable[[str, Any], Any] = run.Model
    models = [model(path.name, json.loads(path.read_text())) for path in sorted(folder.iterdir())]
    jobs = []
    for one in models:
        count = int(one.weight * scale)
        sizes = [GROUP] * (count // GROUP) + [count % GROUP] * (count % GROUP > 0)
        jobs += [run.Job(one, size) for size in sizes]
    return jobs
