"""`scripts/bench`: measures the node against probes of the same machine, in turn, and says what it got."""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

import leaks
from bench import client, docker, machine, probes, system, table, walls
from stoker.cli.diagnosis import is_compiled
from stoker.settings import Settings

RESULTS = Path(__file__).with_name("results.json")
SPARE_S = 0.02  # between two cold calls, so that each finds a spare
WALLS = {
    "lean": "lean: own user, pid, mount, ipc, uts, time and net namespaces, own uid, read-only root of own "
    "inodes, size-limited tmpfs, "
    "memory, pids and cpu limits, no_new_privs, seccomp, no capabilities",
    "process": "process: none (a plain process with an environment of its own)",
}


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int
    calls: int
    cold_calls: int
    forks: int
    starts: int
    rate_s: float
    docker_runs: int
    walled: int


FULL = Plan(rounds=7, calls=2000, cold_calls=100, forks=500, starts=10, rate_s=4, docker_runs=3, walled=200)
QUICK = Plan(rounds=5, calls=400, cold_calls=25, forks=100, starts=3, rate_s=1, docker_runs=1, walled=50)


class Bench:
    """One run: what was measured so far, and what could not be."""

    def __init__(self, plan: Plan, sandbox: str, console: Console) -> None:
        self.plan = plan
        self.sandbox = sandbox
        self.console = console
        self.series: table.Series = {}
        self.missing: dict[str, str] = {}
        self.walls: walls.Costs = {}

    def add(self, name: str, value: float) -> None:
        self.series.setdefault(name, []).append(value)

    def add_latencies(self, name: str, values: list[float]) -> None:
        self.add(f"{name}_us", statistics.median(values))
        self.add(f"{name}_p99_us", probes.percentile(values, 99))

    def run(self) -> None:
        binary, server_file = probes.interpreter()
        with ExitStack() as stack:
            engine = self._engine(stack, binary)
            node = stack.enter_context(system.running(self.sandbox))
            plain_port = stack.enter_context(probes.plain_server())
            relay_port = stack.enter_context(probes.relay())
            node.deploy("warm", {"reuse": "process"})
            node.deploy("cold", {"reuse": "none"})
            for name in ("warm", "cold"):
                node.call(name)
            for number in range(1, self.plan.rounds + 1):
                self.console.print(f"round {number} of {self.plan.rounds}", style="dim")
                self._probe(binary, server_file)
                self._latencies(node, relay_port)
                self._rates(node, plain_port)
                if engine is not None:
                    self.add("dr_us", statistics.median(engine.runs_us(binary, self.plan.docker_runs)))
            marks = [str(node.home), Settings(home=node.home).node_id]
        self._starts()
        self._kills()
        if self.sandbox == "lean":
            self.walls = walls.costs(self.plan.walled)
        if things := leaks.left(marks):
            raise client.Failed("left behind: " + "; ".join(things))

    def _engine(self, stack: ExitStack, binary: Path) -> docker.Engine | None:
        try:
            return stack.enter_context(docker.engine(binary))
        except docker.NotMeasured as reason:
            self.missing["dr_us"] = str(reason)
            return None

    def _probe(self, binary: Path, server_file: str) -> None:
        forks = probes.zygote_forks(binary, server_file, self.plan.forks)
        self.add("f0_us", forks.p50_us)
        self.add("f0_p99_us", forks.p99_us)
        self.add("fw_rate", forks.per_second)
        starts = probes.start_us([str(binary), "-I", "-S", "-c", "pass"], self.plan.starts)
        self.add("p0_us", statistics.median(starts))

    def _latencies(self, node: system.System, relay_port: int) -> None:
        null = client.request("GET", "/health")
        warm = client.request("POST", "/functions/warm/call", client.BODY)
        cold = client.request("POST", "/functions/cold/call", client.BODY)
        relayed = client.Connection(relay_port)
        connection = client.Connection(node.port)
        try:
            self.add("x0_us", statistics.median(relayed.round_trips_us(warm, self.plan.calls)))
            connection.latencies(null, 50)
            connection.latencies(warm, 50)
            self.add_latencies("h0", connection.latencies(null, self.plan.calls))
            self.add_latencies("s3", connection.latencies(warm, self.plan.calls))
            self.add_latencies("s1", connection.latencies(cold, self.plan.cold_calls, SPARE_S))
            self.add_latencies("s1_busy", connection.latencies(cold, self.plan.cold_calls))
        finally:
            connection.close()
            relayed.close()

    def _rates(self, node: system.System, plain_port: int) -> None:
        self.add("ru_rate", client.rate(plain_port, "/", self.plan.rate_s).per_second)
        before = machine.cpu_ns(node.pid)
        null = client.rate(node.port, "/health", self.plan.rate_s)
        between = machine.cpu_ns(node.pid)
        warm = client.rate(node.port, "/functions/warm/call", self.plan.rate_s)
        after = machine.cpu_ns(node.pid)
        self.add("r0_rate", null.per_second)
        self.add("s4_rate", warm.per_second)
        self.add("s4_us", warm.p50_us)
        self.add("s4_p99_us", warm.p99_us)
        self.add("cpu_null_us", (between - before) / 1000 / null.requests)
        self.add("cpu_call_us", (after - between) / 1000 / warm.requests)

    def _starts(self) -> None:
        for took in probes.start_us([str(system.STOKER), "--help"], 2 * self.plan.starts):
            self.add("help_ms", took / 1000)
        for _ in range(self.plan.starts):
            self.add("start_ms", system.first_answer_ms(self.sandbox))

    def _kills(self) -> None:
        """Rounds enough for a median and a longest that mean something."""
        for _ in range(self.plan.starts):
            for name, took in zip(("helper", "node"), system.back_ms(self.sandbox), strict=True):
                if took:
                    self.add(f"back_{name}_ms", statistics.median(took))
                    self.add(f"back_{name}_max_ms", max(took))
                else:
                    self.missing[f"back_{name}_ms"] = f"{self.sandbox} has no {name}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything; under a minute")
    parser.add_argument("--sandbox", default="", help="the backend to measure; as root lean, else process")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where the results go ({RESULTS.name})")
    parser.add_argument("--walls", action="store_true", help="only what each wall costs")
    parser.add_argument(
        "--page", type=Path, help="also write the tables to this page, below its first line `---`"
    )
    given = parser.parse_args()
    console = Console(highlight=False, width=max(110, Console().width))
    bench = Bench(QUICK if given.quick else FULL, given.sandbox or system.default_sandbox(), console)
    listening = machine.Listening()
    try:
        if given.walls:
            table.show_walls(console, table.wall_rows(walls.costs(bench.plan.walled)))
            return 0
        bench.run()
    except client.Failed as error:
        console.print(f"failed: {error}", style="red", markup=False)
        return 1
    report(bench, listening.stop(), given.json, given.page)
    return 0


def report(bench: Bench, noise: machine.Noise, results: Path, page: Path | None) -> None:
    """Print the tables, write the results, and the page when one is wanted."""
    what, isolation = machine.describe(), WALLS.get(bench.sandbox, bench.sandbox)
    kind = "compiled" if is_compiled() else "as it is in the checkout"
    goals = table.rows(bench.series, bench.missing)
    circumstances = [
        f"isolation: {isolation}",
        f"stoker: {kind}",
        f"{what.cpus} × {what.cpu}, kernel {what.kernel}, Python {what.python}",
        f"load {noise.load}, steal {noise.steal_percent} %, cpu pressure {noise.cpu_pressure_percent} %",
    ]
    table.show(bench.console, bench.series, goals, bench.missing)
    if bench.walls:
        table.show_walls(bench.console, table.wall_rows(bench.walls))
    for line in circumstances:
        bench.console.print(line, markup=False)
    result = {"machine": what, "noise": noise, "isolation": isolation, "goals": goals, "series": bench.series}
    result["walls"] = bench.walls
    results.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    if page is not None:
        head, rule, _ = page.read_text("utf-8").partition("\n---\n")
        tables = table.markdown(bench.series, goals, bench.missing, circumstances)
        if bench.walls:
            tables += "\n" + table.walls_markdown(table.wall_rows(bench.walls))
        page.write_text(f"{head}{rule}\n{tables}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
