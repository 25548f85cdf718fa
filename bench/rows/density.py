"""S6: what a sandbox takes that waits for its next call, and a thousand of them."""

from __future__ import annotations

from bench import density
from bench.row import Goal, Probe, Row, allowed, ratio
from bench.run import Run

THOUSAND = 1000


def measure(run: Run) -> None:
    """`s6_thousand_mb` is for a thousand, of however many there were."""
    run.need_walls()
    count = run.of(THOUSAND, 60)
    with run.own_node("--set", "memory_mb=2000000") as node:
        seen = density.numbers(node, count)
    run.add("s6_unique_kb", seen["uss_kb"])
    run.add("s6_shared_kb", seen["pss_kb"])
    run.add("s6_kernel_kb", seen["kernel_kb"])
    run.add("s6_thousand_mb", seen["total_kb"] * THOUSAND / 1024)
    run.add("s6_answer_us", seen["random_us"])


ROW = Row(
    "idle sandboxes",
    measure,
    probes=(
        Probe("PSS", "s6_shared_kb", "idle warm sandbox, with its share of what several use"),
        Probe("kernel", "s6_kernel_kb", "kernel memory of an idle warm sandbox"),
    ),
    goals=(
        Goal("S6", "idle warm sandbox: unique memory", "≤ 1.5 × U0", ("s6_unique_kb", "u0_kb"),
             ratio("s6_unique_kb", "u0_kb"), 1.5),
        Goal("S6", "idle warm sandbox: unique memory", "≤ 2.5 MB", ("s6_unique_kb",),
             allowed("s6_unique_kb", 2.5e6 / 1024), 1.0),
        Goal("S6", "1,000 idle sandboxes (quick: reckoned from 60)", "≤ 3 GiB", ("s6_thousand_mb",),
             allowed("s6_thousand_mb", 3072.0), 1.0),
        Goal("S6", "a random one of them answers: p50", "≤ 1.5 × S3", ("s6_answer_us", "s3_us"),
             ratio("s6_answer_us", "s3_us"), 1.5),
    ),
    is_repeated=False,
)  # fmt: skip
