"""How much memory idle warm sandboxes of different functions take, and whether each still answers.

Theory. A sandbox costs what its processes have for themselves (their unique set), page tables, and what the
kernel keeps for it: mounts, a network namespace, cgroups, descriptors. The first two are read of each
process; the kernel's part is not told of one sandbox, so it is the difference that all of them make to what
the kernel says of itself, divided by their number. Only a quiet machine tells it well.

`python -m bench.density [COUNT]` prints it alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import probes
from bench.client import BODY, Connection, Failed, request
from bench.system import System, descendants, helper_of, running

KERNEL = ("SUnreclaim", "PageTables", "KernelStack", "Percpu", "VmallocUsed")
"""What the kernel has for itself and gives back to nobody, of what /proc/meminfo says."""
SPREAD = 200
"""How many of the idle ones are asked for a latency."""
CODE = "NUMBER = {}\n\ndef lambda_handler(event, context):\n    return {{'number': NUMBER}}\n"
Numbers = dict[str, float]


def measure(count: int, *settings: str) -> Numbers:
    """Numbers of `count` idle sandboxes, one a function; raises `Failed` if one does not answer or stay.

    `_kb` is of one sandbox, `_mb` of all or of a process of ours. Kernel and total are differences that
    the machine shows.
    """
    if os.geteuid() != 0:
        raise Failed("only root may look into the memory of sandboxes")
    with running("lean", *settings) as node:
        return numbers(node, count)


def numbers(node: System, count: int) -> Numbers:
    """The same of a node that has called nothing yet."""
    for number in range(count + 1):
        node.deploy(f"idle-{number}", {}, {"main.py": CODE.format(number)})
    _call(node, count)  # a zygote and spares are there before, and after
    node.wait_until_quiet()
    helper = helper_of(node)
    known, before = set(descendants(helper)), _memory()
    for number in range(count):
        _call(node, number)
    node.wait_until_quiet()
    idle = node.ask("GET", "/stats")["data"]["pool"]["idle"]
    if idle != count + 1:
        raise Failed(f"{idle} of {count + 1} sandboxes are idle")
    after, inside = _memory(), list(_held_by(set(descendants(helper)) - known))
    binary, server_file = probes.interpreter()
    return {
        "count": count,
        "u0_kb": probes.zygote_forks(binary, server_file, 10).unique_kb,
        "uss_kb": sum(held["Private_Clean"] + held["Private_Dirty"] for held in inside) / count,
        "pss_kb": sum(held["Pss"] for held in inside) / count,
        "tables_kb": sum(held["VmPTE"] for held in inside) / count,
        "kernel_kb": sum(after[name] - before[name] for name in KERNEL) / count,
        "total_kb": (before["MemAvailable"] - after["MemAvailable"]) / count,
        "total_mb": (before["MemAvailable"] - after["MemAvailable"]) / 1024,
        "node_mb": _held_kb(node.pid)["Rss"] / 1024,
        "helper_mb": _held_kb(helper)["Rss"] / 1024,
        **_latencies(node, count),
    }


def _call(node: System, number: int) -> None:
    answer = node.call(f"idle-{number}")
    if answer != {"number": number}:
        raise Failed(f"function {number} answered {answer}")


def _latencies(node: System, count: int) -> Numbers:
    """A call of any of them beside a call of always the same one, in turn."""
    connection, chosen = Connection(node.port), random.Random(count)
    same = request("POST", f"/functions/idle-{count}/call", BODY)
    one, anyone = [], []
    try:
        for _ in range(SPREAD):
            number = chosen.randrange(count)
            anyone += connection.latencies(request("POST", f"/functions/idle-{number}/call", BODY), 1)
            one += connection.latencies(same, 2)[1:]  # the second: it has run a moment ago
    finally:
        connection.close()
    return {"random_us": statistics.median(anyone), "one_us": statistics.median(one)}


def _memory() -> dict[str, int]:
    """What the machine says of its memory, in kB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def _held_by(pids: set[int]) -> Iterator[dict[str, int]]:
    """What each has that is still there: a spare may go meanwhile."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield _held_kb(pid)


def _held_kb(pid: int) -> dict[str, int]:
    """What one process has, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    lines += [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmPTE")
    ]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for name, value in measure(count, *sys.argv[2:]).items():
        print(f"{name:12} {value:10,.1f}")


if __name__ == "__main__":
    main()
