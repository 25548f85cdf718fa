"""S15: how long calls are without an answer when the node or its helper is killed."""

from __future__ import annotations

import statistics

from bench import system
from bench.row import Goal, Row, allowed, longest
from bench.run import Run


def measure(run: Run) -> None:
    """Rounds enough for a median and a longest that mean something."""
    for _ in range(run.of(10, 1)):
        for name, took in zip(("helper", "node"), system.back_ms(run.sandbox), strict=True):
            if took:
                run.add(f"back_{name}_ms", statistics.median(took))
                run.add(f"back_{name}_max_ms", max(took))
            else:
                run.lack((f"back_{name}_ms", f"back_{name}_max_ms"), f"{run.sandbox} has no {name}")


def goals(name: str) -> tuple[Goal, ...]:
    middle, most, what = f"back_{name}_ms", f"back_{name}_max_ms", f"back after kill -9 of the {name}"
    return (
        Goal("S15", f"{what}: p50", "≤ 2000 ms", (middle,), allowed(middle, 2000.0), 1.0),
        Goal("S15", f"{what}: longest", "≤ 2000 ms", (most,), longest(most, 2000.0), 1.0),
    )


ROW = Row("kills", measure, goals=(*goals("helper"), *goals("node")), is_repeated=False)
