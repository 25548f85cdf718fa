"""Seen from inside, every wall is what SECURITY.md promises, and none is weaker than Docker's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from bench.docker import engine
from bench.row import NotMeasured

import leaks
from stoker import plugins
from stoker.cli.exits import FAILED, OK
from stoker.walls import WALLS, Column, Report
from stoker.walls.inside.stoker_probe import kernel, reach, sight
from stoker.walls.table import NOT_SEEN, is_open, weaker
from stoker.walls.visit import LOOK_S, WITHOUT_ROOT
from walls import pages

SOURCE = Path(__file__).resolve().parents[2] / "src"
ORDINARY = 64_399
COLUMNS = tuple(pages.promises())

BECOME = f"""
import os, sys
from pathlib import Path
from stoker.linux import privileges
privileges.give_up("", {ORDINARY}, [*privileges.own_code(), Path(os.environ["TMPDIR"])])
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def doctor(folder: Path, engine: str = "", is_ordinary: bool = False) -> subprocess.CompletedProcess[str]:
    """`stoker doctor --walls`, as one types it, with its folder in this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STOKER_", "DOCKER_"))}
    environment = kept | {
        "PYTHONPATH": str(SOURCE),
        "TMPDIR": str(folder),
        "HOME": str(folder),
        "DOCKER_HOST": engine or "unix:///no/such/engine",
    }
    become = ["-c", BECOME] if is_ordinary else []
    if is_ordinary:
        os.chown(folder, ORDINARY, ORDINARY)
    return subprocess.run(
        [sys.executable, *become, "-m", "stoker", "doctor", "--walls", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one look saw, and left behind."""
    return look(tmp_path_factory)


@pytest.fixture(scope="module")
def seen_by_a_user(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same for an ordinary user."""
    return look(tmp_path_factory, is_ordinary=os.geteuid() == 0)


def look(folders: pytest.TempPathFactory, is_ordinary: bool = False) -> dict[str, Any]:
    folder = folders.mktemp("walls")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    done = doctor(folder, is_ordinary=is_ordinary)
    assert done.stdout, done.stderr
    left = [
        *leaks.left([str(folder), "walls-forked", "walls-executed"]),
        *traces(),
        *map(str, folder.iterdir()),
    ]
    report: dict[str, Any] = json.loads(done.stdout)
    return {**report, "exit": done.returncode, "left": left}


def traces() -> list[str]:
    """What looks have left that is still there after a look's time: another one may be under way here."""
    return leaks.left([Path(thing).name for thing in leaks.found(["stoker-trace"])], LOOK_S)


def require(name: str, problem: str) -> None:
    """Skip what this machine cannot do, unless it has promised to."""
    if name in os.environ.get("STOKER_PROMISED", "").split(","):
        pytest.fail(f"this machine promised {name}: {problem}")
    pytest.skip(f"{name}: {problem}")


@pytest.mark.parametrize("name", COLUMNS)
def test_what_is_seen_from_inside_is_what_is_promised(request: pytest.FixtureRequest, name: str) -> None:
    look = request.getfixturevalue("seen_by_a_user" if name.endswith(WITHOUT_ROOT) else "seen")
    column = look["columns"].get(name)
    if column is None:
        pytest.skip(f"{name} is for another user than this one")
    if column["problem"]:
        require(name.split(maxsplit=1)[0], column["problem"])
    walls = column["walls"]
    differing = {wall: both for wall, both in walls.items() if both["promised"] not in (None, both["seen"])}
    assert differing == {}
    assert column["kept"]


def test_a_look_says_with_its_exit_code_whether_the_default_is_as_promised(seen: dict[str, Any]) -> None:
    assert seen["exit"] == (OK if seen["kept"] else FAILED)
    kept = any(column["kept"] for name, column in seen["columns"].items() if name.split()[0] == "lean")
    assert seen["kept"] == kept


def test_a_look_leaves_nothing_behind(seen: dict[str, Any], seen_by_a_user: dict[str, Any]) -> None:
    assert seen["left"] + seen_by_a_user["left"] == []


def test_what_one_that_was_killed_has_left_is_taken_away_by_its_key() -> None:
    key = 1_000_000_000 + os.getpid()
    leave = f"from stoker.walls.inside.stoker_probe import reach; reach.Traces({key}).leave()"
    code = f"{leave}\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -SIGKILL
    assert f"file /tmp/stoker-trace-{key}" in leaks.found([f"stoker-trace-{key}"])
    assert len(shared(key)) == 3
    reach.remove(key)
    assert (leaks.found([f"stoker-trace-{key}"]), shared(key)) == ([], [])


def shared(key: int) -> list[str]:
    """Memory, queues and semaphores of this key on the machine."""
    lines = [
        line
        for kind in ("shm", "msg", "sem")
        for line in Path("/proc/sysvipc", kind).read_text().splitlines()
    ]
    return [line for line in lines if line.split()[0] == str(key)]


def test_no_probe_is_at_a_loss(seen: dict[str, Any]) -> None:
    words = {
        f"{column}: {probe}": word
        for column, facts in seen["columns"].items()
        for probe, word in facts["probes"].items()
    }
    assert words
    assert {name: word for name, word in words.items() if word.startswith("unknown") or not word} == {}


def test_where_no_engine_answers_the_others_are_told_all_the_same(seen: dict[str, Any]) -> None:
    assert seen["columns"]["docker"]["problem"]
    process = seen["columns"]["process"]
    assert (process["problem"], bool(process["walls"])) == ("", True)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_wall_is_weaker_than_dockers_default(folder: Path) -> None:
    try:
        with engine() as started:
            report = json.loads(doctor(folder, f"unix://{started.folder}/engine.sock").stdout)
            left = (
                started.say("ps", "--all", "--quiet").stdout + started.say("images", "stoker-walls*").stdout
            )
    except NotMeasured as reason:
        require("docker", str(reason))
    assert report["columns"]["docker"]["problem"] == ""
    assert report["weaker_than_docker"].get("lean", []) == []
    assert b"stoker-walls" not in left
    assert list(folder.iterdir()) == []


# What is promised


def test_security_md_says_what_is_promised() -> None:
    page = pages.PROMISED.read_text()
    assert pages.with_table(page, pages.promised_table()) == page, "write it anew: tests/walls/pages.py"


def test_a_promise_is_of_a_wall_that_there_is() -> None:
    names = {wall.name for wall in WALLS}
    assert {name for promised in pages.promises().values() for name in promised if name not in names} == set()


def test_a_sandbox_with_a_filter_promises_something_of_every_wall() -> None:
    walled = [promised for promised in pages.promises().values() if promised.get("seccomp filter") == "on"]
    assert [set(promised) for promised in walled] == [{wall.name for wall in WALLS}] * len(walled)


def every_probe() -> Iterator[str]:
    for room in (kernel.probes(), sight.probes(set(), {}), reach.probes()):
        yield from room


@pytest.mark.parametrize("probe", list(every_probe()))
def test_a_probe_speaks_for_exactly_one_wall(probe: str) -> None:
    walls = [wall.name for wall in WALLS for pattern in wall.probes if fnmatchcase(probe, pattern)]
    assert len(walls) == 1, walls


def test_a_backend_without_promises_is_not_looked_at() -> None:
    assert not hasattr(plugins.load("sandboxes", "fake"), "PROMISES")


# How it is told

SOME, OTHER = WALLS[0], WALLS[1]
MNT, PID = "namespace/mnt", "namespace/pid"


def test_a_wall_says_the_usual_word_then_who_says_otherwise() -> None:
    assert SOME.summary({MNT: "own", PID: "own"}) == "own"
    assert SOME.summary({MNT: "own", PID: "own", "namespace/time": "shared"}) == "own; shared: time"
    assert SOME.summary({}) == NOT_SEEN


def test_what_a_kernel_does_not_have_changes_no_promise() -> None:
    assert SOME.summary({MNT: "absent", PID: "denied EPERM"}) == "denied EPERM"
    assert SOME.summary({MNT: "absent", PID: "absent"}) == "absent"
    assert SOME.summary({MNT: "absent", PID: "shared"}) == "absent; shared: pid"


def test_a_broken_promise_is_shown_and_fails() -> None:
    column = Column("lean", "lean", {MNT: "shared"}, {SOME.name: "own"})
    report = Report("lean", (column,))
    assert list(column.broken()) == [(SOME.name, "own", "shared")]
    assert not report.is_kept
    assert next(iter(report.rows())) == (SOME.name, "✗ shared\npromised: own")


def test_a_kept_promise_passes_and_a_sandbox_that_was_not_seen_does_not() -> None:
    kept = Column("lean", "lean", {MNT: "own"}, {SOME.name: "own"})
    assert Report("lean", (kept,)).is_kept
    assert not Report("process", (kept,)).is_kept
    assert not Report("lean", (Column("lean", "lean", problem="no root"),)).is_kept
    assert list(Report("lean", (Column("lean", problem="no root"),)).remarks()) == ["lean: no root"]


def test_weaker_is_open_where_the_other_has_a_wall() -> None:
    ours = {"a": "allowed: 3", "b": "shared", "c": "denied EPERM", "d": "allowed"}
    assert list(weaker(ours, {"a": "none", "b": "shared", "c": "allowed"})) == ["a"]
    assert [is_open(word) for word in ("shared", "killed SIGSYS", "absent", "unlimited")] == [
        True,
        False,
        False,
        True,
    ]


def test_weaker_than_docker_is_told_of_what_promises_walls() -> None:
    walled = Column("lean", "lean", {MNT: "shared"}, {"seccomp filter": "on"})
    plain = Column("process", "process", {MNT: "shared"})
    report = Report("lean", (walled, plain, Column("docker", words={MNT: "own"})))
    assert report.weaker_than_docker() == {"lean": [MNT]}
    assert list(report.remarks()) == ["lean: weaker than Docker's default in namespace/mnt"]
