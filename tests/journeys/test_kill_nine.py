"""`kill -9` of what a node is made of, at any moment and under load: nothing is left and service is back."""

from __future__ import annotations

import http.client
import itertools
import os
import random
import select
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

import leaks
from journeys.running import PYTHON, Answer, RunningNode, running, together, zipped
from stoker.records.pages import Pages
from stoker.records.tables import connect
from stoker.settings import Settings

BACK_S = 10.0  # a bound for the slowest machine; what is aimed at is two, and printed is what it took
SETTLED_S = 1.0  # records are on disk 50 ms after the call, if that follows
UNFINISHED = ("staging", "trash")
KNOWN = {
    "blobs",
    "build-settings",
    "code",
    "node.lock",
    "records.sqlite",
    "records.sqlite-shm",
    "records.sqlite-wal",
    *UNFINISHED,
}
CODE = """
import os

LIFE = os.urandom(8).hex()

def lambda_handler(event, context):
    return {"event": event, "life": LIFE}
"""
COLD = {**PYTHON, "reuse": "none"}
# What a caller may be told of a call that was inside: never that the function has failed.
HONEST = {"sandbox_lost", "sandbox_failed", "backend_lost", "backend_unavailable", "draining", "too_busy"}


class Load:
    """Callers that never rest: warm calls, cold ones, builds. What they are told is kept."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self._over = threading.Event()
        self._numbers = itertools.count()
        self.answers: Counter[str] = Counter()
        self.odd: list[str] = []
        self.settled: list[tuple[float, float, str]] = []
        """When a call was sent and when its answer was read, and its id."""
        self.lives: set[str] = set()
        """Of the sandboxes that have answered."""

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._go_on, args=[ask])
            for ask in (self._warm, self._cold, self._away, self._build)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _go_on(self, ask: Callable[[int], Answer]) -> None:
        while not self._over.is_set():
            try:
                self._hear(ask(next(self._numbers)))
            except (OSError, http.client.HTTPException):
                self.answers["no node"] += 1
                self._over.wait(0.01)

    def _warm(self, number: int) -> Answer:
        return self._asked("warm", number)

    def _cold(self, number: int) -> Answer:
        return self._asked("cold", number)

    def _away(self, number: int) -> Answer:
        return self._asked("away", number)

    def _build(self, number: int) -> Answer:
        name = f"built{time.time_ns()}"
        return self._node.deploy(name, zipped("", {"main.py": f"{CODE}\n# {number}"}, PYTHON))

    def _asked(self, name: str, number: int) -> Answer:
        sent = time.monotonic()
        answer = self._node.call(name, {"n": number})
        if answer.status == 200:
            assert answer.json["event"] == {"n": number}
            self.lives.add(answer.json["life"])
            self.settled.append((sent, time.monotonic(), answer.headers["x-invocation-id"]))
        return answer

    def _hear(self, answer: Answer) -> None:
        kind = "good" if answer.status < 300 else answer.json["error"]["type"]
        self.answers[kind] += 1
        if kind != "good" and kind not in HONEST:
            self.odd.append(repr(answer))


class Family:
    """The processes of a node that runs."""

    def __init__(self, node: RunningNode) -> None:
        self.node = node.pid
        self.marks = [Settings(home=node.home).node_id, str(node.folder)]

    def pids(self, victims: str) -> list[int]:
        """Of those whose names stand there, in any order of killing."""
        pids = []
        if "node" in victims:
            pids.append(self.node)
        if "guardian" in victims:
            pids.append(self.guardian)
        if "helper" in victims:
            pids.append(self.helper)
        random.shuffle(pids)
        return pids

    @property
    def guardian(self) -> int:
        return named("stoker-guardian", self.node)

    @property
    def helper(self) -> int:
        return named("stoker-helper", self.guardian)

    def strangers(self) -> set[str]:
        """Whatever carries our marks and is nobody's of this life: processes, groups, interfaces, names."""
        try:
            helper = self.helper
            known, in_use = {self.node, self.guardian, helper, *below(helper)}, opened(helper)
        except (LookupError, FileNotFoundError) as error:
            return {str(error)}
        found = set()
        for thing in leaks.found(self.marks):
            kind, name = thing.split(" ", 1)
            if kind == "cgroup":
                found |= empty_groups(Path(name)) - in_use
            elif kind in ("mount", "file") or (kind == "process" and int(name.split(":")[0]) not in known):
                found.add(thing)
        return found - {f"file {self.marks[1]}"}


def named(name: str, parent: int) -> int:
    for pid in children(parent):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return pid
    raise LookupError(f"no {name} below {parent}")


def children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it ended meanwhile
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def below(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from below(child)


def empty_groups(parent: Path) -> set[str]:
    """Groups of sandboxes that nobody is in."""
    found = set()
    with suppress(OSError):
        for group in os.scandir(parent):
            with suppress(OSError):
                if group.is_dir() and not Path(group, "cgroup.procs").read_text():
                    found.add(f"cgroup {group.path}")
    return found


def opened(helper: int) -> set[str]:
    """Groups that it has open: if nobody is in one of them, that may wait for the next sandbox."""
    found = set()
    for descriptor in os.listdir(f"/proc/{helper}/fd"):
        with suppress(OSError):
            found.add(f"cgroup {os.path.dirname(os.readlink(f'/proc/{helper}/fd/{descriptor}'))}")
    return found


def wait_until_nothing_is_left(family: Family) -> None:
    """Under load things come and go; what stays for all the time was left behind."""
    left = family.strangers()
    give_up = time.monotonic() + leaks.PATIENCE_S
    while left and time.monotonic() < give_up:
        threading.Event().wait(0.02)
        left &= family.strangers()
    assert left == set()


def seconds_until_it_answers(node: RunningNode, before: set[str], began: float) -> float:
    """Until a function answers from a sandbox that none of those `before` is."""
    while time.monotonic() - began < BACK_S:
        with suppress(OSError, http.client.HTTPException):
            answer = node.call("warm", {"n": -1})
            if answer.status == 200 and answer.json["life"] not in before:
                return time.monotonic() - began
        threading.Event().wait(0.002)
    raise AssertionError(f"no good answer within {BACK_S} s\n{node.log[-5000:]}")


def kill(node: RunningNode, victims: str) -> float:
    """Kill these; when the node ends by that, start it again. Returns when the kill was."""
    family = Family(node)
    also = [] if victims == "helper" else [family.node]
    began = end(family.pids(victims), also)
    if also:
        node.start()
    return began


def end(doomed: list[int], also: Sequence[int] = ()) -> float:
    """Kill these and wait until they have ended, and those that end by it. Returns when the kill was."""
    processes = {pid: os.pidfd_open(pid) for pid in {*doomed, *also}}
    began = time.monotonic()
    for pid in doomed:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(processes[pid], signal.SIGKILL)
    for pid, process in processes.items():
        assert select.select([process], [], [], BACK_S)[0], f"process {pid} goes on"
        os.close(process)
    return began


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    if os.geteuid() != 0:
        pytest.skip("whose processes these are is told by root's eyes")
    with running("lean") as one:
        one.deploy("warm", CODE)
        away = one.deploy("away", zipped("", {"main.py": CODE}, {**COLD, "network": "egress"}))
        assert away.status == 201 or "nft" in away.text, (
            away
        )  # where there is none, all its calls are refused
        one.deploy("cold", zipped("", {"main.py": CODE}, COLD))
        yield one


DAEMON = """
import os, time

def lambda_handler(event, context):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    return {"event": event, "life": ""}
"""


@pytest.fixture(scope="module")
def plain() -> Iterator[RunningNode]:
    """A node without walls, with a function that leaves a daemon of its own running."""
    with running("process") as one:
        one.deploy("warm", DAEMON)
        yield one


@pytest.mark.parametrize("victims", ["node", "node keeper", "node keeper supervisors"])
def test_without_walls_a_killed_node_leaves_nothing_at_its_next_start(
    plain: RunningNode, victims: str
) -> None:
    marks = [Settings(home=plain.home).node_id, str(plain.folder)]
    for _ in range(4):
        assert together(*[partial(plain.call, "warm", {"n": 1})] * 3)[0].status == 200
        keepers = children(plain.pid)
        supervisors = [pid for keeper in keepers for pid in children(keeper)]
        assert supervisors
        end([plain.pid, *keepers * ("keeper" in victims), *supervisors * ("supervisors" in victims)])
        plain.start()
        assert plain.call("warm", {"n": 1}).status == 200
        wait_until_only(lambda: {plain.pid, *below(plain.pid)}, marks)


def wait_until_only(known: Callable[[], set[int]], marks: list[str]) -> None:
    left = set(leaks.processes(marks)) - known()
    give_up = time.monotonic() + leaks.PATIENCE_S
    while left and time.monotonic() < give_up:
        threading.Event().wait(0.02)
        left &= set(leaks.processes(marks)) - known()
    assert left == set()


def schedule(choose: random.Random) -> list[str]:
    """Twenty-one rounds. No five deaths of one guardian's helpers in a row: those it takes for a fault."""
    ends = ["node"] * 6 + ["node helper"] * 2 + ["node helper guardian"] * 2 + ["guardian", "helper guardian"]
    choose.shuffle(ends)
    helpers = ["helper"] * 9
    rounds = []
    for end in ends:
        rounds += [helpers.pop() for _ in range(min(len(helpers), choose.randint(0, 3)))] + [end]
    return helpers[:3] + rounds


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(5))
def test_a_kill_at_any_moment_leaves_nothing_and_service_is_back(node: RunningNode, part: int) -> None:
    seed = int(time.time())
    choose = random.Random(seed)
    took: dict[str, list[float]] = {}
    kills = []
    load = Load(node)
    with load.running():
        for victims in schedule(choose):
            threading.Event().wait(choose.uniform(0.0, 0.2))
            before = set(load.lives)
            kills.append(kill(node, victims))
            took.setdefault(victims, []).append(seconds_until_it_answers(node, before, kills[-1]))
            wait_until_nothing_is_left(Family(node))
    told = ", ".join(f"{count} {kind}" for kind, count in load.answers.most_common())
    print(f"\n{len(kills)} kills (seed {seed}); callers were told: {told}")
    for victims, times in took.items():
        print(
            f"{victims} ({len(times)}): back after {statistics.median(times):.2f}, at most {max(times):.2f} s"
        )
    assert load.odd == []
    node.wait_until_quiet()
    assert {path.name for path in node.home.iterdir()} <= KNOWN
    assert unfinished(node) == []
    links = [thing for thing in leaks.found(Family(node).marks) if thing.startswith("interface")]
    # Sandboxes with a link, and nobody's yet.
    assert len(links) <= node.ask("GET", "/stats").json["data"]["pool"]["spares"]
    assert lost(node, load, [*kills, time.monotonic()]) == []


def unfinished(node: RunningNode) -> list[str]:
    """What builds and removals left that an earlier life did not come to the end of; waits a moment."""
    give_up = time.monotonic() + BACK_S
    while left := [str(path) for name in UNFINISHED for path in (node.home / name).iterdir()]:
        if time.monotonic() > give_up:
            break
        threading.Event().wait(0.02)
    return left


def lost(node: RunningNode, load: Load, kills: list[float]) -> list[str]:
    """Calls that were answered well before the next kill, and have no record."""
    connection = connect(node.home / "records.sqlite")
    try:
        there = {record.id for record in Pages(connection).before(None, None)}
    finally:
        connection.engine.dispose()
    return [
        invocation
        for sent, read, invocation in load.settled
        if invocation not in there and not any(sent <= killed < read + SETTLED_S for killed in kills)
    ]
