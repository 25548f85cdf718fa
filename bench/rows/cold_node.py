"""S8, N0: cold calls of a Node.js function; those of languages that are not there yet."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Probe, Row, ratio
from bench.run import Run

COMES = "comes with its runtime"


def measure(run: Run) -> None:
    run.lack(("s8_java_us", "j0_us", "s8_go_us", "g0_us"), COMES)
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "cold Node.js",
    measure,
    probes=(
        Probe("N0", "n0_us", "node -e 0"),
        Probe("J0", "j0_us", "hello-world JVM"),
        Probe("G0", "g0_us", "vfork and exec of the Go binary"),
    ),
    goals=(
        Goal("S8", "cold Node.js", "≤ 0.35 × N0", ("s8_node_us", "n0_us"),
             ratio("s8_node_us", "n0_us"), 0.35, cpu="s8_cpu_us"),
        Goal("S8", "cold Java", "≤ 0.4 × J0", ("s8_java_us", "j0_us"), ratio("s8_java_us", "j0_us"), 0.4),
        Goal("S8", "cold Go", "≤ 1.5 × G0", ("s8_go_us", "g0_us"), ratio("s8_go_us", "g0_us"), 1.5),
    ),
    is_repeated=False,
)  # fmt: skip
