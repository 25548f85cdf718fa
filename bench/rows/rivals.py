"""Other ways of running the same no-op, beside each other."""

from __future__ import annotations

import statistics

from bench import client
from bench.rivals import bubblewrap, framework, lambdaric
from bench.row import Row, Way
from bench.run import Run


def measure_bubblewrap(run: Run) -> None:
    run.add("bubblewrap_us", statistics.median(run.kept(bubblewrap.wrap).runs_us(run.of(10, 5))))


def measure_framework(run: Run) -> None:
    with framework.server() as (port, cold_us):
        run.add("framework_cold_us", cold_us)
        with client.connected(port) as connection:
            call = client.request("POST", "/", client.BODY)
            run.add("framework_us", statistics.median(connection.latencies(call, run.of(500, 100))))
        if run.is_quick and "framework_rate" in run.series:
            return
        run.add("framework_rate", client.rate(port, "/", run.of(4, 1)).per_second)


def measure_lambdaric(run: Run) -> None:
    cold_us, warm_us = lambdaric.times_us(run.of(500, 100))
    run.add("lambdaric_cold_us", cold_us)
    run.add("lambdaric_us", statistics.median(warm_us))


BUBBLEWRAP = Row(
    "bubblewrap",
    measure_bubblewrap,
    ways=(Way("bubblewrap and Python", bubblewrap.ISOLATION, "bubblewrap_us"),),
)
FRAMEWORK = Row(
    "functions-framework",
    measure_framework,
    ways=(
        Way(
            "functions-framework", framework.ISOLATION, "framework_cold_us", "framework_us", "framework_rate"
        ),
    ),
)
LAMBDARIC = Row(
    "awslambdaric",
    measure_lambdaric,
    ways=(Way("awslambdaric", lambdaric.ISOLATION, "lambdaric_cold_us", "lambdaric_us"),),
)
