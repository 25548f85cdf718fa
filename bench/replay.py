"""`scripts/bench replay`: Azure-shaped arrivals, simulated for every policy, then sent to a real node.

The simulation drives the real plan with a clock of its own and says what a policy is worth; the replay is
short and says whether a node does what was simulated. Both are open loop: each call has its time, whatever
became of those before it, and its latency counts from that time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import statistics
import sys
import zipfile
from pathlib import Path

import msgspec
from rich.console import Console

from bench import machine, system
from bench.arrivals import Arrival, Trace, arrivals
from bench.client import Failed, request
from bench.openloop import Client
from bench.probes import percentile
from bench.simulation import Costs, Result, Simulation
from stoker.pool.keeping import POLICIES
from stoker.pool.plan import Plan
from stoker.pool.pool import STARTS_EACH

RESULTS = Path(__file__).with_name("replay.json")
SCALE, MINUTES = 0.01, 90.0
CAPS = (0.3, 0.5, 0.8)
"""Memory, of what the trace would take if nothing ever had to go."""
UNLIMITED_MB = 10**9
ALIKE = (0.001,)
"""Imports that all take the same; otherwise they are those of `Costs`."""
REAL_SCALE, REAL_S, REAL_CAP = 0.005, 25.0, 0.5
REAL_CPU_S = 0.01
"""The rest is slept, so that what is measured is the keeping and not who else computes on the machine."""
CODE = """import time
def lambda_handler(event, context):
    end = time.thread_time() + event["cpu"]
    while time.thread_time() < end:
        pass
    time.sleep(event["sleep"])
    return {}
"""


class Row(msgspec.Struct, frozen=True):
    """One policy at one cap, over all seeds: medians."""

    imports: str
    cap: float
    policy: str
    cold: float
    pooled: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    idle: float
    """Memory that nobody used, of all that there was."""
    evicted: float
    """Of each hundred calls."""


class Real(msgspec.Struct, frozen=True):
    """What a node did with a piece of the trace."""

    policy: str
    calls: int
    cold: float
    expected: float
    """The same share in the simulation of the same piece."""
    p50_ms: float
    p99_ms: float
    mean_ms: float


def simulated(trace: Trace, policy: str, cap_mb: int, costs: Costs) -> Result:
    plan = Plan(cap_mb, policy, None, STARTS_EACH * costs.processors)
    return Simulation(trace, plan, costs).run()


def compare(seeds: range, scale: float, minutes: float) -> list[Row]:
    traces = [arrivals(seed, scale, minutes) for seed in seeds]
    peaks = [simulated(trace, "lru", UNLIMITED_MB, Costs()).peak_mb for trace in traces]
    rows = []
    for imports, costs in (("mixed", Costs()), ("all alike", Costs(load_s=ALIKE))):
        for cap in CAPS:
            for policy in POLICIES:
                caps = [int(peak * cap) for peak in peaks]
                results = [simulated(one, policy, mb, costs) for one, mb in zip(traces, caps, strict=True)]
                rows.append(_row(imports, cap, policy, results, caps))
    return rows


def _row(imports: str, cap: float, policy: str, results: list[Result], caps: list[int]) -> Row:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    return Row(
        imports=imports,
        cap=cap,
        policy=policy,
        cold=median([100 * one.cold / one.calls for one in results]),
        pooled=median([100 * one.pooled / one.calls for one in results]),
        mean_ms=median([statistics.fmean(one.over_ms) for one in results]),
        p50_ms=median([one.over(50) for one in results]),
        p99_ms=median([one.over(99) for one in results]),
        idle=median([100 * one.idle_mb_s / mb / one.seconds for one, mb in zip(results, caps, strict=True)]),
        evicted=median([100 * one.evicted / one.calls for one in results]),
    )


# The real node


def settings(policy: str, cap_mb: int) -> tuple[str, ...]:
    """What a node is started with, to keep by a policy within a memory cap."""
    return "--set", f"keeping={policy}", "--set", f"memory_mb={cap_mb}"


def replay(node: system.System, trace: Trace, policy: str, cap_mb: int) -> Real:
    """A trace, each call at its time, against a node started with these `settings` that has nothing yet."""
    used = {arrival.function for arrival in trace.arrivals}
    for number in sorted(used):
        _deploy(node, trace, number)
    before = node.ask("GET", "/stats")["data"]["calls"]["sources"]
    over_ms = asyncio.run(_send(trace, node.port))
    after = node.ask("GET", "/stats")["data"]["calls"]["sources"]
    cold = after.get("fresh", 0) - before.get("fresh", 0)
    return Real(
        policy=policy,
        calls=len(over_ms),
        cold=100 * cold / len(over_ms),
        expected=100 * simulated(trace, policy, cap_mb, Costs()).cold_share,
        p50_ms=percentile(over_ms, 50),
        p99_ms=percentile(over_ms, 99),
        mean_ms=statistics.fmean(over_ms),
    )


def _deploy(node: system.System, trace: Trace, number: int) -> None:
    package = io.BytesIO()
    one = trace.functions[number]
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("main.py", CODE)
        archive.writestr("config.json", json.dumps({"environment": "python", "reuse": "process"}))
    code = base64.b64encode(package.getvalue()).decode()
    wish = {"name": one.name, "runtime": "python", "code": code, "memory_mb": one.memory_mb, "timeout": 120}
    node.ask("POST", "/functions", wish)


async def _send(trace: Trace, port: int) -> list[float]:
    """Each call at its time; milliseconds beyond its own run."""
    requests = []
    for arrival in trace.arrivals:
        body = json.dumps({"cpu": arrival.cpu_s, "sleep": arrival.sleep_s}).encode()
        path = f"/functions/{trace.functions[arrival.function].name}/call"
        requests.append((arrival.at_s, request("POST", path, body)))
    async with Client(port) as client:
        sent = await client.send(requests)
    if bad := [one.head for one in sent if one.status != 200]:
        raise Failed(f"{len(bad)} of {len(sent)} calls failed, the first with {bad[0][:200]!r}")
    return [1000 * (one.took_s - of.run_s) for one, of in zip(sent, trace.arrivals, strict=True)]


def piece(trace: Trace, seconds: float) -> Trace:
    """What begins and ends within the first seconds, nearly all of it asleep."""
    kept = (one for one in trace.arrivals if one.at_s + one.run_s < seconds)
    return Trace(trace.functions, tuple(_asleep(one) for one in kept))


def _asleep(one: Arrival) -> Arrival:
    cpu_s = min(one.cpu_s, REAL_CPU_S)
    return Arrival(one.at_s, one.function, cpu_s, one.run_s - cpu_s)


# Telling


def markdown(rows: list[Row], real: list[Real]) -> list[str]:
    head = "imports,memory,policy,cold %,ahead %,mean ms,p50 ms,p99 ms,idle %,evicted %".split(",")
    lines = [_line(head), _line(["---"] * len(head))] if rows else []
    for row in rows:
        numbers = (row.cold, row.pooled, row.mean_ms, row.p50_ms, row.p99_ms, row.idle, row.evicted)
        lines.append(_line([row.imports, f"{row.cap:.0%}", row.policy, *map(_figure, numbers)]))
    if real:
        titles = ["a node", "calls", "cold %", "simulated", "mean ms", "p50 ms", "p99 ms"]
        lines += ["", _line(titles), _line(["---"] * len(titles))]
        for one in real:
            figures = map(_figure, (one.cold, one.expected, one.mean_ms, one.p50_ms, one.p99_ms))
            lines.append(_line([one.policy, str(one.calls), *figures]))
    return lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench replay", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many traces (5)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--scale", type=float, default=SCALE, help=f"share of Azure's functions ({SCALE})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"length of each trace ({MINUTES:g})")
    parser.add_argument(
        "--real", default="", metavar="POLICIES", help="also a short replay for each: fixed,lru"
    )
    parser.add_argument("--sandbox", default="", help="of that replay; as root lean, else process")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where the results go ({RESULTS.name})")
    given = parser.parse_args()
    console = Console(highlight=False, width=max(110, Console().width))
    listening = machine.Listening()
    try:
        seeds = range(given.first, given.first + given.seeds)
        rows = compare(seeds, given.scale, given.minutes) if seeds else []
        real = _replays([name for name in given.real.split(",") if name], given.sandbox)
    except Failed as error:
        console.print(f"failed: {error}", style="red", markup=False)
        return 1
    for line in markdown(rows, real):
        console.print(line, markup=False)
    noise = listening.stop()
    console.print(
        f"load {noise.load}, steal {noise.steal_percent} %, cpu pressure {noise.cpu_pressure_percent} %"
    )
    result = {"rows": rows, "real": real, "noise": noise, "machine": machine.describe()}
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    return 0


def real_piece(seed: int, seconds: float) -> tuple[Trace, int]:
    """Of a trace as much as a node can be asked to serve, and the memory cap for it."""
    trace = piece(arrivals(seed, REAL_SCALE, 2 * seconds / 60), seconds)
    return trace, int(simulated(trace, "lru", UNLIMITED_MB, Costs()).peak_mb * REAL_CAP)


def _replays(policies: list[str], sandbox: str) -> list[Real]:
    if not policies:
        return []
    trace, cap_mb = real_piece(1, REAL_S)
    done = []
    for policy in policies:
        with system.running(sandbox or system.default_sandbox(), *settings(policy, cap_mb)) as node:
            done.append(replay(node, trace, policy, cap_mb))
    return done


if __name__ == "__main__":
    sys.exit(main())
