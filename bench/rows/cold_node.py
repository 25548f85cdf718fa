"""S8, N0: cold calls of a Node.js function; those of languages that are not there yet."""

from __future__ import annotations

import shutil
import statistics

from bench import client, machine, probes
from bench.row import Goal, NotMeasured, Probe, Row, ratio
from bench.run import Run

COMES = "comes with its runtime"
PAUSE_S = 0.25
"""Between two calls, so that each finds a spare: a Node.js takes a while to boot."""
NO_OP = {"index.js": "exports.handle = async () => ({});\n"}


def measure(run: Run) -> None:
    run.lack(("s8_java_us", "j0_us", "s8_go_us", "g0_us"), COMES)
    binary = shutil.which("node")
    if binary is None:
        raise NotMeasured("no node here")
    run.add("n0_us", statistics.median(probes.start_us([binary, "-e", "0"], run.of(20, 5))))
    count = run.of(60, 8)
    with run.own_node() as node:
        node.deploy("cold-node", {"reuse": "none"}, NO_OP, "nodejs")
        node.call("cold-node")
        call = client.request("POST", "/functions/cold-node/call", client.BODY)
        with client.connected(node.port) as connection:
            before = machine.cpu_ns(node.pid)
            run.add_latencies("s8_node", connection.latencies(call, count, PAUSE_S))
            node.wait_until_quiet()
            run.add("s8_cpu_us", (machine.cpu_ns(node.pid) - before) / 1000 / count)


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
