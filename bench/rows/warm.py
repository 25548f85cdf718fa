"""S3, S4, S14: calls of a no-op function that is there, in a sandbox with every wall."""

from __future__ import annotations

from bench import client, machine
from bench.row import Goal, Row, ratio
from bench.rows.null import WARM_UP
from bench.run import Run


def measure(run: Run) -> None:
    path = run.called("warm", "process")
    call = client.request("POST", path, client.BODY)
    with client.connected(run.node.port) as connection:
        connection.latencies(call, WARM_UP)
        before = machine.cpu_ns(run.node.pid)
        took = connection.latencies(call, run.of(2000, 400))
        run.add("s3_cpu_us", (machine.cpu_ns(run.node.pid) - before) / 1000 / len(took))
        run.add_latencies("s3", took)
    before = machine.cpu_ns(run.node.pid)
    rate = client.rate(run.node.port, path, run.of(4, 1))
    run.add("s14_us", (machine.cpu_ns(run.node.pid) - before) / 1000 / rate.requests)
    run.add("s4_rate", rate.per_second)
    run.add("s4_us", rate.p50_us)
    run.add("s4_p99_us", rate.p99_us)


RATE = "warm rate, 32 connections"

ROW = Row(
    "warm calls",
    measure,
    goals=(
        Goal("S3", "warm, serial, 100 bytes: p50", "≤ 1.8 × H0", ("s3_us", "h0_us"),
             ratio("s3_us", "h0_us"), 1.8, cpu="s3_cpu_us"),
        Goal("S3", "warm, serial, 100 bytes: p99", "≤ 2.5 × H0 p99", ("s3_p99_us", "h0_p99_us"),
             ratio("s3_p99_us", "h0_p99_us"), 2.5, cpu="s3_cpu_us"),
        Goal("S4", RATE, "≥ 1.0 × RU", ("s4_rate", "ru_rate"),
             ratio("s4_rate", "ru_rate"), 1.0, at_least=True, cpu="s14_us"),
        Goal("S4", RATE, "≥ 0.45 × R0", ("s4_rate", "r0_rate"),
             ratio("s4_rate", "r0_rate"), 0.45, at_least=True, cpu="s14_us"),
        Goal("S4", "warm, 32 connections: p99", "≤ 10 × p50", ("s4_p99_us", "s4_us"),
             ratio("s4_p99_us", "s4_us"), 10.0, cpu="s14_us"),
        Goal("S14", "processor time of a warm call", "≤ 2.2 × C0", ("s14_us", "c0_us"),
             ratio("s14_us", "c0_us"), 2.2, cpu="s14_us"),
    ),
)  # fmt: skip
