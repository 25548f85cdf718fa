"""S5: sandboxes made, called once and destroyed without an end: a pool only moves cost."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench import client, machine, system
from bench.row import Goal, NotMeasured, Row, allowed, ratio
from bench.run import Run

WARM_UP_S = 5
"""After this there are as many spares as such a load ever has."""

STILL_S, POLL_S, SETTLED_S, QUICK_S = 1.0, 0.1, 60.0, 4.0


def measure(run: Run) -> None:
    run.need_walls()
    with run.own_node() as node:
        node.deploy("churn", {"reuse": "none"})
        node.call("churn")
        client.rate(node.port, "/functions/churn/call", run.of(WARM_UP_S, 2))
        _settle(node)
        spares, before = _spares(node), _there_is(node)
        cpu_before = machine.cpu_ns(node.pid)
        rate = client.rate(node.port, "/functions/churn/call", run.of(60, 3))
        node.wait_until_quiet()
        cpu_after = machine.cpu_ns(node.pid)
        run.add("s5_rate", rate.per_second)
        run.add("s5_cpu_us", (cpu_after - cpu_before) / 1000 / rate.requests)
        _settle(node)
        what, percent = _left(node, spares, before, run.of(SETTLED_S, QUICK_S))
    run.say(f"of what there was before {what} grew most, by {percent:.2f} %")
    run.add("s5_left_percent", percent)


def _left(node: system.System, spares: int, before: dict[str, int], within_s: float) -> tuple[str, float]:
    """What grew most, in percent, while there are as many spares as before: they become fewer in time."""
    give_up = time.monotonic() + within_s
    while _spares(node) > spares:
        if time.monotonic() > give_up:
            raise NotMeasured(f"after {within_s:g} s there were still more spares than before")
        time.sleep(POLL_S)
    looks = [_most(before, _there_is(node))]
    while _spares(node) == spares and time.monotonic() < give_up:
        looks.append(_most(before, _there_is(node)))
    # A spare that goes is counted no more and still there for a moment.
    return min(looks, key=lambda look: look[1])


def _settle(node: system.System) -> None:
    """Until no more spares are made."""
    count = -1
    while (now := len(system.descendants(node.pid))) > count:
        count = now
        node.wait_until_quiet()
        time.sleep(STILL_S)


def _spares(node: system.System) -> int:
    count: int = node.ask("GET", "/stats")["data"]["pool"]["spares"]
    return count


def _there_is(node: system.System) -> dict[str, int]:
    """What there is of everything that a sandbox takes."""
    below = system.descendants(node.pid)
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free_kb, total_kb = (int(memory[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    groups = Path("/proc/cgroups").read_text().splitlines()[1:]
    ours = (node.pid, system.helper_of(node))
    return {
        "memory": total_kb - free_kb,
        "mounts": sum(len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()) for pid in ours),
        "cgroups": sum(int(line.split()[2]) for line in groups),
        "processes": len(below),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in ours),
    }


def _most(before: dict[str, int], after: dict[str, int]) -> tuple[str, float]:
    grown = {name: 100 * (after[name] - number) / number for name, number in before.items()}
    return max(grown.items(), key=lambda item: item[1])


ROW = Row(
    "create, call, destroy",
    measure,
    goals=(
        Goal("S5", "created, called, destroyed, sustained", "≥ 0.40 × FW", ("s5_rate", "fw_rate"),
             ratio("s5_rate", "fw_rate"), 0.40, at_least=True, cpu="s5_cpu_us"),
        Goal("S5", "memory, mounts, cgroups, pids, descriptors left", "≤ 1 %", ("s5_left_percent",),
             allowed("s5_left_percent", 1.0), 1.0),
    ),
    is_repeated=False,
)  # fmt: skip
