"""Processes by descriptor: ended, waited for, and named when they do not end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.linux.cgroups import Groups, Tree
from stoker.linux.processes import describe, kill_and_wait

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def frozen(sleeper: subprocess.Popen[bytes], node_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that no signal ends, as one that waits for a dead disk; in a group of a node's."""
    if os.geteuid() != 0 or not FREEZER.is_dir():
        pytest.skip("only root, and only the freezer of version 1, makes a process that cannot be killed")
    group = FREEZER / f"stoker-{node_id}" / "guest"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(str(sleeper.pid))
    (group / "freezer.state").write_text("FROZEN")
    yield sleeper
    (group / "freezer.state").write_text("THAWED")
    sleeper.kill()
    sleeper.wait()
    group.rmdir()
    group.parent.rmdir()


def test_what_can_end_has_ended_when_it_returns(sleeper: subprocess.Popen[bytes]) -> None:
    assert kill_and_wait([sleeper.pid, 2**22 - 1], time.monotonic() + 60) == []
    assert sleeper.poll() == -9
    assert kill_and_wait([sleeper.pid], time.monotonic() + 60) == []


def test_what_does_not_end_is_told_when_the_time_is_up(frozen: subprocess.Popen[bytes]) -> None:
    assert kill_and_wait([frozen.pid], time.monotonic() + 0.05) == [frozen.pid]
    assert describe(frozen.pid).startswith(f"process {frozen.pid} (sleep, state ")


def test_a_sweep_ends_with_what_it_could_not_remove(frozen: subprocess.Popen[bytes], node_id: str) -> None:
    groups = Groups((Tree(FREEZER, frozenset({"pids"}), 1),), node_id)
    with pytest.raises(OSError, match=rf"process {frozen.pid} \(sleep, .*\) does not end: .*/guest"):
        groups.sweep()
