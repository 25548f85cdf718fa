"""X0, RU: a bare relay and a bare web server, of whom nothing is ours."""

from __future__ import annotations

import statistics

from bench import client, probes
from bench.row import Probe, Row
from bench.run import Run


def measure(run: Run) -> None:
    with client.connected(run.kept(probes.relay)) as relayed:
        call = client.request("POST", "/", client.BODY)
        run.add("x0_us", statistics.median(relayed.round_trips_us(call, run.of(2000, 400))))
    run.add("ru_rate", client.rate(run.kept(probes.plain_server), "/", run.of(4, 1)).per_second)


ROW = Row(
    "bare servers",
    measure,
    probes=(
        Probe("X0", "x0_us", "bare relay to another process and back, one connection"),
        Probe("RU", "ru_rate", "plain uvicorn echo, 32 connections"),
    ),
)
