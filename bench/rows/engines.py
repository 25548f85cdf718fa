"""DR, RR: the same no-op by `docker run` and by `runc run`."""

from __future__ import annotations

import statistics

from bench import docker, runc
from bench.row import Probe, Row, Way
from bench.run import Run


def measure_docker(run: Run) -> None:
    run.add("dr_us", statistics.median(run.kept(docker.engine).runs_us(run.of(3, 1))))


def measure_runc(run: Run) -> None:
    run.add("rr_us", statistics.median(run.kept(runc.bundle).runs_us(run.of(5, 2))))


DOCKER = Row(
    "docker run",
    measure_docker,
    probes=(Probe("DR", "dr_us", "docker run of the same no-op"),),
    ways=(Way("docker run", docker.ISOLATION, "dr_us"),),
)
RUNC = Row(
    "runc run",
    measure_runc,
    probes=(Probe("RR", "rr_us", "runc run of the same no-op"),),
    ways=(Way("runc run", runc.ISOLATION, "rr_us"),),
)
