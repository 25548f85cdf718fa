"""`scripts/bench`: measures the node against probes of the same machine, in turn, and says what it got."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
from rich.console import Console

from bench import client, machine, system, table, walls
from bench.row import NotMeasured, Row, Series
from bench.rows import ROWS
from bench.run import Run
from stoker.cli.diagnosis import is_compiled

RESULTS = Path(__file__).with_name("results.json")
WALLS = {
    "lean": "lean: own user, pid, mount, ipc, uts, time and net namespaces, own uid, read-only root of own "
    "inodes, size-limited tmpfs, memory, pids and cpu limits, no_new_privs, seccomp, no capabilities",
    "process": "process: none (a plain process with an environment of its own)",
}
SIDE = "SIDE"
"""What stands for the table of other ways in a choice of goals."""
WALLED, WALLED_QUICK = 200, 50


def chosen(rows: tuple[Row, ...], only: str) -> tuple[Row, ...]:
    """The rows of these goals, and those that measure what they are compared with. Raises `Failed`."""
    if not only:
        return rows
    wanted = {name.strip().upper() for name in only.split(",")}
    known = {goal.id for row in rows for goal in row.goals}
    if unknown := wanted - known - {SIDE}:
        there = ", ".join([*sorted(known, key=table.place), SIDE])
        raise client.Failed(f"no goal {', '.join(sorted(unknown))}; there is {there}")
    shown = [_shown(row, wanted) for row in rows]
    needs = {key for row in shown for goal in row.goals for key in goal.needs}
    needs |= {key for row in shown for way in row.ways for key in way.keys}
    return tuple(less for row, less in zip(rows, shown, strict=True) if needs & measured(row))


def _shown(row: Row, wanted: set[str]) -> Row:
    """With nothing to show but what is wanted."""
    goals = tuple(goal for goal in row.goals if goal.id in wanted)
    return msgspec.structs.replace(row, goals=goals, ways=row.ways if SIDE in wanted else ())


def measured(row: Row) -> set[str]:
    """The series that a row says are its own."""
    cold = (way.cold for way in row.ways)
    return {*(probe.key for probe in row.probes), *(goal.needs[0] for goal in row.goals), *cold}


def perform(run: Run, rows: Iterable[Row]) -> None:
    """Measure everything, the repeated rows in turn. Raises `Failed`."""
    repeated = [row for row in rows if row.is_repeated]
    try:
        for number in range(1, run.rounds + 1 if repeated else 1):
            run.say(f"round {number} of {run.rounds}")
            repeated = [row for row in repeated if is_measured(run, row)]
            if run.has_rounds_enough:
                break
    finally:
        run.close()
    for row in rows:
        if not row.is_repeated:
            if run.is_late:
                run.lack(measured(row), "no time was left in this quick run")
                continue
            run.say(row.name)
            is_measured(run, row)


def is_measured(run: Run, row: Row) -> bool:
    """Whether it could be; its lines tell why it could not."""
    try:
        row.measure(run)
    except NotMeasured as reason:
        run.lack(measured(row), str(reason))
        return False
    return True


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
    count = run.of(WALLED, WALLED_QUICK)
    try:
        if given.walls:
            table.show(console, "Walls", table.WALL_HEADS, table.wall_lines(walls.costs(count)))
            return 0
        rows = chosen(ROWS, given.only)
        perform(run, rows)
        costs = walls.costs(count) if sandbox == "lean" and not given.only and not run.is_late else {}
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
        walls=costs,
    )
    show(report, console)
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    if given.page is not None:
        write(report, given.page)
    return 0


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


def write(report: Report, page: Path) -> None:
    """Put the tables on a page, below its rule."""
    head, rule, _ = page.read_text("utf-8").partition("\n---\n")
    tables = [table.markdown(heads, cells) for _, heads, cells in report.tables]
    tables.insert(2, "".join(f"* {line}\n" for line in report.circumstances))
    page.write_text(f"{head}{rule}\n" + "\n".join(tables), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
