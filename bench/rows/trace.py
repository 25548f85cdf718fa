"""S10: Azure-shaped arrivals at half the memory that they would like."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Row, allowed, ratio
from bench.run import Run


def measure(run: Run) -> None:
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "trace replay",
    measure,
    goals=(
        Goal("S10", "trace at half the memory: cold calls", "≤ 0.6 × fixed time with LRU",
             ("s10_cold_percent", "s10_fixed_percent"), ratio("s10_cold_percent", "s10_fixed_percent"), 0.6),
        Goal("S10", "trace at half the memory: added latency p99", "≤ 5 ms", ("s10_p99_ms",),
             allowed("s10_p99_ms", 5.0), 1.0),
    ),
    is_repeated=False,
)  # fmt: skip
