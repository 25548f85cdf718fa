"""S11: twice as many calls as the node can serve, for a minute: what it still serves, and how it refuses.

The calls compute, so that what saturates is the processors and not the client, which shares them. It sends
each call at its time, whatever became of those before; a latency counts from that time.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from bench import machine
from bench.client import Failed, request
from bench.openloop import Client, Sent
from bench.probes import percentile
from bench.row import Goal, Row, allowed, ratio
from bench.run import Run
from bench.system import System

TIMES = 2
AT_ONCE = (4, 16)
"""With how many connections the most is looked for that the node can serve."""
COMPUTES = """
import time
def lambda_handler(event, context):
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass
    return {}
"""
CALL = request("POST", "/functions/computes/call", b"{}")


def measure(run: Run) -> None:
    with run.own_node() as node:
        node.deploy("computes", {"reuse": "process"}, {"main.py": COMPUTES})
        node.call("computes")
        peak = max(
            asyncio.run(served(node, count, run.of(10.0, 1.0))) for count in run.of(AT_ONCE, AT_ONCE[-1:])
        )
        seconds = run.of(60.0, 4.0)
        run.say(f"{TIMES} × {peak:.0f} calls a second for {seconds:g} s")
        before_kb, before_ns = resident_kb(node), machine.cpu_ns(node.pid)
        sent = asyncio.run(flood(node, TIMES * peak, seconds))
        spent_ns, after_kb = machine.cpu_ns(node.pid) - before_ns, resident_kb(node)
    good = [one for one in sent if one.status == 200]
    refused = [one for one in sent if one.status in (429, 503)]
    if strange := [one for one in sent if one.status not in (200, 429, 503)]:
        raise Failed(f"{len(strange)} of {len(sent)} calls failed, the first with {strange[0].head[:200]!r}")
    if silent := [one for one in refused if not re.search(rb"retry-after: \d", one.head.lower())]:
        raise Failed(f"{len(silent)} of {len(refused)} refusals do not say when to come back")
    run.add("s11_peak_rate", peak)
    run.add("s11_good_rate", len(good) / max(one.ended_s for one in sent))
    run.add("s11_cpu_us", spent_ns / 1000 / len(good))
    run.add("s11_memory_percent", 100 * (after_kb - before_kb) / before_kb)
    if refused:
        run.add("s11_refusal_p99_ms", percentile([1000 * one.took_s for one in refused], 99))
    run.lack(["s11_refusal_p99_ms"], "nothing was refused")


async def served(node: System, connections: int, seconds: float) -> float:
    """Calls a second, with so many at a time. Raises `Failed`."""
    began = time.monotonic()
    async with Client(node.port) as client:
        done = await asyncio.gather(*(client.serial(CALL, began + seconds) for _ in range(connections)))
    calls = [one for each in done for one in each]
    if bad := [one for one in calls if one.status != 200]:
        raise Failed(
            f"{len(bad)} of {len(calls)} calls were not answered, the first with {bad[0].head[:200]!r}"
        )
    return len(calls) / (time.monotonic() - began)


async def flood(node: System, rate: float, seconds: float) -> list[Sent]:
    async with Client(node.port) as client:
        return await client.send([(number / rate, CALL) for number in range(int(rate * seconds))])


def resident_kb(node: System) -> int:
    """What the node's own process has in memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{node.pid}/status").read_text())
    return int(found[1]) if found else 0


ROW = Row(
    "overload",
    measure,
    goals=(
        Goal("S11", "goodput at twice the saturation", "≥ 0.9 × peak", ("s11_good_rate", "s11_peak_rate"),
             ratio("s11_good_rate", "s11_peak_rate"), 0.9, at_least=True, cpu="s11_cpu_us"),
        Goal("S11", "refusals, each with Retry-After: p99", "< 5 ms", ("s11_refusal_p99_ms",),
             allowed("s11_refusal_p99_ms", 5.0), 1.0),
        Goal("S11", "memory of the node meanwhile", "≤ 10 % more", ("s11_memory_percent",),
             allowed("s11_memory_percent", 10.0), 1.0),
    ),
    is_repeated=False,
)  # fmt: skip
