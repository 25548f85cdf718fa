"""S1: calls of a function of which no sandbox is there, from a spare and with none left."""

from __future__ import annotations

from bench import client, machine
from bench.row import Goal, Row, Way, above_null, ratio, times_faster
from bench.run import Run

SPARE_S = 0.02
"""Between two calls, so that each finds a spare."""


def measure(run: Run) -> None:
    call = client.request("POST", run.called("cold", "none"), client.BODY)
    count = run.of(100, 25)
    with client.connected(run.node.port) as connection:
        before = machine.cpu_ns(run.node.pid)
        run.add_latencies("s1", connection.latencies(call, count, SPARE_S))
        between = machine.cpu_ns(run.node.pid)
        run.add_latencies("s1_busy", connection.latencies(call, count))
        after = machine.cpu_ns(run.node.pid)
    run.add("s1_cpu_us", (between - before) / 1000 / count)
    run.add("s1_busy_cpu_us", (after - between) / 1000 / count)


ROW = Row(
    "cold calls",
    measure,
    goals=(
        Goal("S1", "cold, from a spare: p50 − H0", "≤ 1.0 × F0", ("s1_us", "h0_us", "f0_us"),
             above_null("s1_us", "f0_us"), 1.0, cpu="s1_cpu_us"),
        Goal("S1", "cold, back to back: p50 − H0", "≤ 2.0 × F0", ("s1_busy_us", "h0_us", "f0_us"),
             above_null("s1_busy_us", "f0_us"), 2.0, cpu="s1_busy_cpu_us"),
        Goal("S1", "cold, from a spare: p99", "≤ 4 × F0 p99", ("s1_p99_us", "f0_p99_us"),
             ratio("s1_p99_us", "f0_p99_us"), 4.0, cpu="s1_cpu_us"),
        Goal("S1", "cold, against docker run", "≥ 200 × faster", ("s1_us", "dr_us", "h0_us"),
             times_faster("dr_us", "s1_us"), 200.0, at_least=True),
        Goal("S1", "cold, against runc run", "≥ 25 × faster", ("s1_us", "rr_us", "h0_us"),
             times_faster("rr_us", "s1_us"), 25.0, at_least=True),
    ),
    ways=(Way("stoker, from a spare", "", "s1_us", "s3_us", "s4_rate"),
          Way("stoker, back to back", "", "s1_busy_us")),
)  # fmt: skip
