"""S5: sandboxes made, called once and destroyed without an end: a pool only moves cost."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Row, allowed, ratio
from bench.run import Run


def measure(run: Run) -> None:
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "create, call, destroy",
    measure,
    goals=(
        Goal("S5", "created, called, destroyed, sustained", "≥ 0.40 × FW", ("s5_rate", "fw_rate"),
             ratio("s5_rate", "fw_rate"), 0.40, at_least=True, cpu="s5_cpu_us"),
        Goal("S5", "memory, mounts, cgroups, pids, descriptors left", "≤ 1 %", ("s5_left_percent",),
             allowed("s5_left_percent", 1.0), 1.0),
    ),
    is_repeated=False,
)  # fmt: skip
