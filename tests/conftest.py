"""What every test may ask for, and the last word of a run: nothing of it is left on the machine.

`home` and `node_id` are not pytest's `tmp_path`: a node that root starts becomes somebody else, who
must be able to reach its home; and every name made on the host carries the node's id, by which a
run tells its own leavings from those of other nodes on the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

import leaks
from stoker.settings import Settings

MARKS = pytest.StashKey[list[str]]()
FOLDER = pytest.StashKey[Path]()
COUNT = pytest.StashKey["itertools.count[int]"]()
OPEN = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-"))
    folder.chmod(0o755)
    config.stash[FOLDER] = folder
    config.stash[MARKS] = [folder.name]
    config.stash[COUNT] = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    uvloop.run(asyncio.sleep(0))  # its library keeps a pipe for signals from the first loop on
    session.config.stash[OPEN] = leaks.descriptors()


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Path:
    """A new, empty home for a node, reachable for everybody; its node's id is watched for leavings."""
    config = request.config
    folder = config.stash[FOLDER] / f"home{next(config.stash[COUNT])}"
    folder.mkdir(0o755)
    config.stash[MARKS].append(Settings(home=folder).node_id)
    leaks.watch(config.stash[MARKS][-1])
    return folder


@pytest.fixture
def node_id(home: Path) -> str:
    """The id of the node whose home is `home`."""
    return Settings(home=home).node_id


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """A new, empty folder that everybody can reach: for code to be shown to sandboxes."""
    config = request.config
    folder = config.stash[FOLDER] / f"folder{next(config.stash[COUNT])}"
    folder.mkdir(0o755)
    return folder


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def nothing_left(home: Path, node_id: str) -> Iterator[None]:
    """Fails the test when, at its end, a process, mount, cgroup or file of its node is left."""
    yield
    assert leaks.left([str(home), node_id]) == []


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    folder = config.stash[FOLDER]
    gc.collect()
    with contextlib.suppress(OSError):  # what cannot be removed is found below
        leaks.remove(folder)
    things = [*leaks.left(config.stash[MARKS]), *leaks.zombies()]
    if OPEN in config.stash:  # who runs workers collects nothing, and runs no test
        things += [f"descriptor of {open}" for open in leaks.descriptors() - config.stash[OPEN]]
    things += config.stash.get(LEFT, [])
    if things:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    config.stash[LEFT] = things
    if hasattr(config, "workeroutput"):
        config.workeroutput["left"] = things


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker found at its end is told by who runs it."""
    node.config.stash.setdefault(LEFT, []).extend(getattr(node, "workeroutput", {}).get("left", []))


LEFT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    things = config.stash.get(LEFT, [])
    if things:
        terminalreporter.section("left behind", red=True)
        for thing in things:
            terminalreporter.line(thing)


def pytest_report_header(config: pytest.Config) -> str:
    promised = os.environ.get("STOKER_PROMISED", "")
    return f"promised by this machine: {promised or 'nothing; what it cannot do is skipped, with the reason'}"
