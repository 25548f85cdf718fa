"""H0, R0: our own listener answering a constant, without a sandbox."""

from __future__ import annotations

from bench import client, machine
from bench.row import Probe, Row
from bench.run import Run

NULL = "/health"
WARM_UP = 50


def measure(run: Run) -> None:
    null = client.request("GET", NULL)
    with client.connected(run.node.port) as connection:
        connection.latencies(null, WARM_UP)
        run.add_latencies("h0", connection.latencies(null, run.of(2000, 400)))
    before = machine.cpu_ns(run.node.pid)
    rate = client.rate(run.node.port, NULL, run.of(4, 1))
    run.add("c0_us", (machine.cpu_ns(run.node.pid) - before) / 1000 / rate.requests)
    run.add("r0_rate", rate.per_second)


ROW = Row(
    "null calls",
    measure,
    probes=(
        Probe("H0", "h0_us", "null call, one connection"),
        Probe("H0 p99", "h0_p99_us", "the same, 99th percentile"),
        Probe("R0", "r0_rate", "null rate, 32 connections"),
        Probe("C0", "c0_us", "processor time of a null call, all processes"),
    ),
)
