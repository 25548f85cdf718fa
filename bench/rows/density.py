"""S6: what a sandbox takes that waits for its next call, and a thousand of them."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Row, allowed, ratio
from bench.run import Run


def measure(run: Run) -> None:
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "idle sandboxes",
    measure,
    goals=(
        Goal("S6", "idle warm sandbox: unique memory", "≤ 1.5 × U0", ("s6_unique_kb", "u0_kb"),
             ratio("s6_unique_kb", "u0_kb"), 1.5),
        Goal("S6", "idle warm sandbox: unique memory", "≤ 2.5 MB", ("s6_unique_kb",),
             allowed("s6_unique_kb", 2500.0), 1.0),
        Goal("S6", "1,000 idle sandboxes: memory of the machine", "≤ 3 GiB", ("s6_thousand_mb",),
             allowed("s6_thousand_mb", 3072.0), 1.0),
        Goal("S6", "a random one of them answers: p50", "≤ 1.5 × S3", ("s6_answer_us", "s3_us"),
             ratio("s6_answer_us", "s3_us"), 1.5),
    ),
    is_repeated=False,
)  # fmt: skip
