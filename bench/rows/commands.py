"""S13: how long the command line and a start take."""

from __future__ import annotations

from bench import probes, system
from bench.row import Goal, Row, allowed
from bench.run import Run


def measure(run: Run) -> None:
    starts = run.of(10, 2)
    for took in probes.start_us([str(system.STOKER), "--help"], 2 * starts):
        run.add("help_ms", took / 1000)
    for _ in range(starts):
        run.add("start_ms", system.first_answer_ms(run.sandbox))


ROW = Row(
    "starts",
    measure,
    goals=(
        Goal("S13", "stoker --help", "≤ 200 ms", ("help_ms",), allowed("help_ms", 200.0), 1.0,
             is_inside=False),
        Goal("S13", "stoker start to first answer", "≤ 1000 ms", ("start_ms",),
             allowed("start_ms", 1000.0), 1.0, is_inside=False),
    ),
    is_repeated=False,
)  # fmt: skip
