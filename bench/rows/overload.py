"""S11: twice as many calls as the node can serve, without an end."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Row, allowed, ratio
from bench.run import Run


def measure(run: Run) -> None:
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "overload",
    measure,
    goals=(
        Goal("S11", "goodput at twice the saturation", "≥ 0.9 × peak", ("s11_good_rate", "s11_peak_rate"),
             ratio("s11_good_rate", "s11_peak_rate"), 0.9, at_least=True),
        Goal("S11", "refusals, each with Retry-After: p99", "< 5 ms", ("s11_refusal_p99_ms",),
             allowed("s11_refusal_p99_ms", 5.0), 1.0),
        Goal("S11", "memory while overloaded, over that before", "≤ 10 % more", ("s11_memory_percent",),
             allowed("s11_memory_percent", 10.0), 1.0),
    ),
    is_repeated=False,
)  # fmt: skip
