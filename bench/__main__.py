"""`scripts/bench`: measures the node against probes of the same machine, in turn, and says what it got."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from bench import client, course, machine, system, table, walls
from bench.row import Series
from bench.rows import ROWS
from bench.run import Run
from stoker.cli.diagnosis import is_compiled

RESULTS = Path(__file__).with_name("results.json")
WALLS = {
    "lean": "lean: own user, pid, mount, ipc, uts, time and net namespaces, own uid, read-only root of own "
    "inodes, size-limited tmpfs, memory, pids and cpu limits, no_new_privs, seccomp, no capabilities",
    "process": "process: none (a plain process with an environment of its own)",
}
WALLED, WALLED_QUICK = 200, 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything; under a minute")
    parser.add_argument("--only", default="", metavar="GOALS", help="only these: S1,S5,SIDE")
    parser.add_argument("--sandbox", default="", help="the backend to measure; as root lean, else process")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where the results go ({RESULTS.name})")
    parser.add_argument("--walls", action="store_true", help="only what each wall costs")
    parser.add_argument(
        "--page", type=Path, help="also write the tables to this page, below its first line `---`"
    )
    given = parser.parse_args()
    console = Console(highlight=False, width=max(150, Console().width))
    sandbox = given.sandbox or system.default_sandbox()
    run = Run(sandbox, console, given.quick)
    listening = machine.Listening()
    costs: walls.Costs = {}
    count = run.of(WALLED, WALLED_QUICK)
    try:
        if given.walls:
            table.show(console, "Walls", table.WALL_HEADS, table.wall_lines(walls.costs(count)))
            return 0
        rows = course.chosen(ROWS, given.only)
        course.perform(run, rows)
        if sandbox == "lean" and os.geteuid() == 0 and not given.only and not run.is_late:
            costs = walls.costs(count)
    except client.Failed as error:
        console.print(f"failed: {error}", style="red", markup=False)
        return 1
    report = Report(
        what=machine.describe(),
        noise=listening.stop(),
        isolation=WALLS.get(sandbox, sandbox),
        promised=run.seen.told,
        kind="compiled" if is_compiled() else "as it is in the checkout",
        probes=table.probe_lines(rows, run.series, run.missing),
        ways=table.way_lines(rows, run.series, run.missing, WALLS.get(sandbox, sandbox)),
        goals=table.lines(rows, run.series, run.missing, sandbox),
        series=run.series,
        missing=run.missing,
        failures=run.failures,
        walls=costs,
    )
    show(report, console)
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    if given.page is not None:
        write(report, given.page)
    return 1 if run.failures else 0


class Report(msgspec.Struct, frozen=True):
    """All that a run tells."""

    what: machine.Machine
    noise: machine.Noise
    isolation: str
    promised: str
    kind: str
    probes: list[tuple[str, str, str]]
    goals: list[table.Line]
    ways: list[tuple[str, ...]]
    series: Series
    missing: dict[str, str]
    failures: list[str]
    walls: walls.Costs

    @property
    def circumstances(self) -> list[str]:
        what, noise = self.what, self.noise
        return [
            f"isolation: {self.isolation}",
            self.promised,
            f"stoker: {self.kind}",
            f"{what.cpus} × {what.cpu}, kernel {what.kernel}, Python {what.python}",
            f"load {noise.load}, steal {noise.steal_percent} %, cpu pressure {noise.cpu_pressure_percent} %",
        ]

    @property
    def tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """Title, heads and cells of each."""
        tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = [
            ("Probes", table.PROBE_HEADS, [*self.probes]),
            ("Goals", table.GOAL_HEADS, [line.cells for line in self.goals]),
            ("Side by side", table.WAY_HEADS, self.ways),
            ("Walls", table.WALL_HEADS, [*table.wall_lines(self.walls)] if self.walls else []),
        ]
        return [(title, heads, cells) for title, heads, cells in tables if cells]


def show(report: Report, console: Console) -> None:
    for title, heads, cells in report.tables:
        table.show(console, title, heads, cells)
    for line in report.circumstances:
        console.print(line, markup=False)
    for failure in report.failures:
        console.print(f"failed: {failure}", style="red", markup=False)


def write(report: Report, page: Path) -> None:
    """Put the tables on a page, below its rule."""
    head, rule, _ = page.read_text("utf-8").partition("\n---\n")
    tables = [f"### {title}\n\n{table.markdown(heads, cells)}" for title, heads, cells in report.tables]
    tables.append("".join(f"* {line}\n" for line in report.circumstances))
    page.write_text(f"{head}{rule}\n" + "\n".join(tables), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
