"""S2: cold calls of functions whose imports take long, from a zygote that has them."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench import client, machine, zygotes
from bench.client import Failed
from bench.row import Goal, NotMeasured, Row, ratio
from bench.run import Run
from bench.system import System
from stoker import plugins

HEAVY_ROUNDS, HEAVY_CALLS = 5, 30
APART_S = 0.05
"""Between two calls, so that each finds a spare."""
NO_MORE_S = 15.0
MIX_MB, MIX_CALLS = 2048, 100


def measure(run: Run) -> None:
    run.need_walls()
    if run.is_quick:
        raise NotMeasured("builds from a package index take too long for a quick run")
    try:
        with run.own_node() as node:
            _heavy(run, node)
        for key, more in (("s2_mix_us", ()), ("s2_mix_off_us", ("--set", "zygotes_mb=0"))):
            with run.own_node("--set", f"memory_mb={MIX_MB}", *more) as node:
                run.add(key, statistics.median(_mix(node)))
    except Failed as error:
        if "build_failed" in str(error):
            raise NotMeasured("no package index can be reached") from None
        raise


def _heavy(run: Run, node: System) -> None:
    """Import, forks and calls in turn."""
    config: dict[str, object] = {"reuse": "none", "memory_mb": 512}
    files = {"main.py": zygotes.source(zygotes.HEAVY), "requirements.txt": zygotes.REQUIREMENTS}
    node.deploy("heavy", config, files)
    node.call("heavy")
    wait_for_zygotes(node, 1)
    binary = plugins.load("runtimes", "python").Runtime().default().binary
    code = next(Path(node.home, "code").rglob(".stoker/deps")).parents[1]
    call = client.request("POST", "/functions/heavy/call", client.BODY)
    for _ in range(HEAVY_ROUNDS):
        imported_us, forks_us = zygotes.of_bare_interpreter(binary, code, zygotes.HEAVY)
        run.add("s2_import_us", imported_us)
        run.add("s2_fork_us", statistics.median(forks_us))
        with client.connected(node.port) as connection:
            before = machine.cpu_ns(node.pid)
            run.add_latencies("s2", connection.latencies(call, HEAVY_CALLS, APART_S))
            run.add("s2_cpu_us", (machine.cpu_ns(node.pid) - before) / 1000 / HEAVY_CALLS)


def _mix(node: System) -> list[float]:
    """Microseconds of cold calls, after the sets' own zygotes have had the time to be made."""
    for number, (requirements, modules) in enumerate(zygotes.SETS):
        files = {
            "main.py": zygotes.source(tuple(modules.split())),
            "requirements.txt": requirements.replace(" ", "\n") + "\n",
        }
        node.deploy(f"set-{number}", {"reuse": "none", "memory_mb": 128}, files)
        node.call(f"set-{number}")
    node.wait_until_quiet()
    wait_until_no_more_come(node)
    took: list[float] = []
    with client.connected(node.port) as connection:
        for number in zygotes.picks(MIX_CALLS):
            call = client.request("POST", f"/functions/set-{number}/call", client.BODY)
            took += connection.latencies(call, 1, APART_S)
    return took


def wait_for_zygotes(node: System, count: int) -> None:
    give_up = time.monotonic() + zygotes.READY_S
    while node.ask("GET", "/stats")["data"]["pool"]["zygotes"] < count:
        if time.monotonic() > give_up:
            raise Failed("the function has no zygote; the log says why")
        time.sleep(0.05)


def wait_until_no_more_come(node: System) -> None:
    """Some sets may have none; they are made one at a time, each in a few times its import."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < NO_MORE_S:
        before, count = count, node.ask("GET", "/stats")["data"]["pool"]["zygotes"]
        since = time.monotonic() if count != before else since
        time.sleep(0.1)


ROW = Row(
    "heavy imports",
    measure,
    goals=(
        Goal("S2", "cold, numpy, pandas, sklearn: p50", "≤ 2.5 × its zygote's fork", ("s2_us", "s2_fork_us"),
             ratio("s2_us", "s2_fork_us"), 2.5, cpu="s2_cpu_us"),
        Goal("S2", "cold, numpy, pandas, sklearn: p50", "≤ 1/20 of the import", ("s2_us", "s2_import_us"),
             ratio("s2_us", "s2_import_us"), 0.05, cpu="s2_cpu_us"),
        Goal("S2", "Zipf mix of requirement sets: median", "≥ 8 × without zygotes",
             ("s2_mix_us", "s2_mix_off_us"), ratio("s2_mix_off_us", "s2_mix_us"), 8.0, at_least=True),
    ),
    is_repeated=False,
)  # fmt: skip
