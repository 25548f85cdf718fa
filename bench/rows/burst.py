"""S7: fifty functions at once, none of which has a sandbox."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Row, ratio
from bench.run import Run


def measure(run: Run) -> None:
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "burst of 50 functions",
    measure,
    goals=(
        Goal("S7", "50 different functions at once: p99", "≤ 1.3 × 50 × creation CPU ÷ processors",
             ("s7_p99_us", "s7_bound_us"), ratio("s7_p99_us", "s7_bound_us"), 1.3, cpu="s7_cpu_us"),
    ),
    is_repeated=False,
)  # fmt: skip
