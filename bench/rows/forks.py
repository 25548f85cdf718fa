"""F0, FW, U0, P0: what the kernel and the interpreter take for a process without anything of ours."""

from __future__ import annotations

import statistics

from bench import probes
from bench.row import Probe, Row
from bench.run import Run


def measure(run: Run) -> None:
    binary, server_file = probes.interpreter()
    forks = probes.zygote_forks(binary, server_file, run.of(500, 100))
    run.add("f0_us", forks.p50_us)
    run.add("f0_p99_us", forks.p99_us)
    run.add("fw_rate", forks.per_second)
    run.add("u0_kb", forks.unique_kb)
    starts = probes.start_us([str(binary), "-I", "-S", "-c", "pass"], run.of(10, 3))
    run.add("p0_us", statistics.median(starts))


ROW = Row(
    "forks",
    measure,
    probes=(
        Probe("F0", "f0_us", "bare fork of the zygote's image, one byte back"),
        Probe("F0 p99", "f0_p99_us", "the same, 99th percentile"),
        Probe("FW", "fw_rate", "fork, exit and wait of the same image, all processors"),
        Probe("U0", "u0_kb", "unique memory of a bare fork of the same image"),
        Probe("P0", "p0_us", "interpreter start, -I -S -c pass"),
    ),
)
