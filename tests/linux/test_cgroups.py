"""The cgroup driver, on the trees this machine has."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.linux.cgroups import Bounds, Groups, Tree, find_trees, move_all
from stoker.linux.gauges import (
    COUNTERS_V1,
    COUNTERS_V2,
    CPU,
    FORKS_REFUSED,
    MEMORY_PEAK,
    OOM_KILLS,
    Counter,
    Counts,
    Gauges,
)
from stoker.linux.places import Places
from stoker.linux.syscalls import clone3
from stoker.types import MEBIBYTE

UNIFIED = Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")


@pytest.fixture
def groups(node_id: str) -> Iterator[Groups]:
    trees = find_trees()
    if not trees:
        pytest.skip("no cgroup tree on this machine can be written")
    groups = Groups(trees, node_id)
    groups.sweep()
    groups.open()
    yield groups
    groups.sweep()


@pytest.fixture
def version_2(node_id: str) -> Iterator[Groups]:
    """Whatever tree of version 2 there is, be it without controllers."""
    for root in UNIFIED:
        if (root / "cgroup.controllers").exists() and os.access(root, os.W_OK):
            groups = Groups((Tree(root, frozenset(), 2),), node_id)
            (root / f"stoker-{node_id}").mkdir()
            yield groups
            groups.sweep()
            return
    pytest.skip("no cgroup tree of version 2 on this machine can be written")


def sleeper(group_descriptors: list[int]) -> subprocess.Popen[bytes]:
    """A process that joins by itself and then waits for ever."""
    return joined(group_descriptors, "/bin/sleep", "infinity")


def joined(group_descriptors: list[int], *command: str) -> subprocess.Popen[bytes]:

    def join() -> None:
        for descriptor in group_descriptors:
            os.write(descriptor, b"0")

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=join)  # noqa: PLW1509 - one thread
    for descriptor in group_descriptors:
        os.close(descriptor)
    return process


def test_a_group_bounds_counts_and_goes(groups: Groups) -> None:
    group = groups.group("one")
    group.make()
    group.bound(Bounds(memory_bytes=64 * MEBIBYTE, pids=10, millicpus=500))
    process = sleeper(group.joining())
    assert group.processes() == {process.pid}
    gauges = group.gauges()
    counts = gauges.counts()
    assert counts.oom_kills == 0
    assert counts.memory_peak_bytes is None or 0 < counts.memory_peak_bytes < 64 * MEBIBYTE
    process.kill()
    process.wait()
    group.remove()
    group.remove()
    assert gauges.counts() == Counts()
    gauges.close()


def test_a_counter_that_is_kept_open_tells_nothing_once_its_group_has_gone(groups: Groups) -> None:
    group = groups.group("one")
    group.make()
    gauges = group.gauges()
    counted = "memory" in groups.controllers
    assert gauges.read(OOM_KILLS) == (0 if counted else None)
    assert (gauges.read(MEMORY_PEAK) is not None) == counted
    group.remove()
    assert [gauges.read(which) for which in (OOM_KILLS, FORKS_REFUSED, MEMORY_PEAK, CPU)] == [None] * 4
    gauges.close()
    gauges.close()
    assert "0 open" in repr(gauges)


@pytest.mark.parametrize("counters", [COUNTERS_V1, COUNTERS_V2])
def test_counters_are_found_by_their_field_and_in_their_unit(
    tmp_path: Path, counters: tuple[Counter, ...]
) -> None:
    texts = {
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n",
        "pids.events": "max 5\n",
        "memory.max_usage_in_bytes": "4096\n",
        "memory.peak": "4096\n",
        "cpuacct.usage": "7000\n",
        "cpu.stat": "usage_usec 7\nuser_usec 5\nsystem_usec 2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    opened = {which: os.open(tmp_path / counter.file, os.O_RDONLY) for which, counter in enumerate(counters)}
    gauges = Gauges(counters, opened)
    told = Counts(oom_kills=2, forks_refused=5, memory_peak_bytes=4096, cpu_ns=7000)
    assert gauges.counts() == told
    gauges.close()


def test_who_is_given_some_counters_reads_those_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "pids.events").write_text("max 5\n")
    (tmp_path / "cpuacct.usage").write_text("7000\n")
    opened = {
        which: os.open(tmp_path / COUNTERS_V1[which].file, os.O_RDONLY) for which in (FORKS_REFUSED, CPU)
    }
    which, descriptors = Gauges(COUNTERS_V1, opened).told()
    given = Gauges.of(COUNTERS_V1, which, list(descriptors))
    assert given.counts() == Counts(forks_refused=5, cpu_ns=7000)
    given.close()


def test_bounds_can_be_raised_and_lowered(groups: Groups, node_id: str) -> None:
    group = groups.group("one")
    group.make()
    for megabytes in (64, 256, 32, 512):
        group.bound(Bounds(memory_bytes=megabytes * MEBIBYTE, pids=megabytes, millicpus=megabytes * 10))
    for tree in groups.trees:
        for name in ("memory.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            for file in tree.root.glob(f"stoker-{node_id}/one/{name}"):
                assert int(file.read_text()) == 512 * MEBIBYTE


def test_a_group_is_not_made_twice(groups: Groups) -> None:
    groups.group("one").make()
    with pytest.raises(FileExistsError):
        groups.group("one").make()


def test_a_sweep_ends_what_is_inside_and_leaves_nothing(groups: Groups, node_id: str) -> None:
    group = groups.group("one")
    group.make()
    process = sleeper(group.joining())
    groups.sweep()
    assert process.wait() == -signal.SIGKILL
    assert list(Path("/sys/fs/cgroup").glob(f"*/stoker-{node_id}")) == []


def test_a_sweep_touches_no_other_nodes_groups(groups: Groups, node_id: str) -> None:
    other = Groups(groups.trees, f"{node_id}x")
    other.open()
    groups.sweep()
    assert all((tree.root / f"stoker-{node_id}x").is_dir() for tree in groups.trees)
    other.sweep()


def test_a_tree_that_takes_no_group_is_forgotten(groups: Groups, node_id: str) -> None:
    closed = Groups((Tree(Path("/proc"), frozenset({"memory"}), 1),), node_id)
    closed.open()
    assert (closed.trees, closed.controllers) == ((), frozenset())


def test_without_any_tree_nothing_is_bounded_and_nothing_fails(node_id: str) -> None:
    groups = Groups((), node_id)
    groups.open()
    group = groups.group("one")
    group.make()
    group.bound(Bounds(memory_bytes=MEBIBYTE, pids=1, millicpus=1))
    assert (group.joining(), group.gauges().counts(), group.processes()) == ([], Counts(), set())
    group.remove()
    groups.sweep()


def test_a_child_is_born_into_a_group_of_version_2(version_2: Groups) -> None:
    group = version_2.group("one")
    group.make()
    (descriptor,) = group.joining()
    pid, pidfd = clone3(0, signal.SIGCHLD, descriptor)
    if pid == 0:
        signal.pause()
        os._exit(0)
    os.close(descriptor)
    assert group.processes() == {pid}
    version_2.sweep()
    assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)
    os.close(pidfd)


def test_who_was_moved_out_of_a_group_that_is_divided_is_moved_back(version_2: Groups, node_id: str) -> None:
    (tree,) = version_2.trees
    divided = Groups((Tree(tree.root / f"stoker-{node_id}", frozenset(), 2),), node_id)
    (inside,) = divided.trees
    process = sleeper([os.open(inside.root / "cgroup.procs", os.O_WRONLY)])
    beside = inside.root / f"stoker-{node_id}-node"
    beside.mkdir()
    move_all(inside.root, beside)
    assert (beside / "cgroup.procs").read_text().split() == [str(process.pid)]
    divided.open()
    divided.sweep()
    assert process.poll() is None
    divided.close()
    assert (inside.root / "cgroup.procs").read_text().split() == [str(process.pid)]
    assert not beside.exists()
    process.kill()
    process.wait()


def test_a_group_that_cannot_be_made_in_one_tree_is_made_in_none(groups: Groups) -> None:
    """Where a controller has a file by that name."""
    for name in ("pids.max", "memory.limit_in_bytes", "memory.max", "tasks", "cgroup.procs"):
        group = groups.group(name)
        try:
            group.make()
        except FileExistsError:
            assert not any((tree.root / groups._path / name).is_dir() for tree in groups.trees)
        else:
            group.remove()


def test_a_place_that_is_used_again_counts_from_nothing_and_is_nobodys_who_was_refused(
    groups: Groups,
) -> None:
    places = Places(groups)
    first = places.take()
    if not first.joining:
        pytest.skip("no tree of version 1 but memory's")
    first.bound(Bounds(memory_bytes=64 * MEBIBYTE, pids=10, millicpus=500))
    process = sleeper([os.dup(descriptor) for descriptor in first.joining])
    process.kill()
    process.wait()
    places.give_back(first, may_be_read=False)
    second = places.take()
    assert (second, second.gauges.read(CPU)) == (first, 0)
    places.give_back(second, may_be_read=True)
    third = places.take()
    assert third is not first, "somebody might have read of the next one"
    third.bound(Bounds(memory_bytes=64 * MEBIBYTE, pids=1, millicpus=500))
    joined([os.dup(descriptor) for descriptor in third.joining], "/bin/sh", "-c", "sleep 0 &").wait()
    was_refused = bool(third.gauges.read(FORKS_REFUSED))
    assert was_refused == ("pids" in groups.controllers)
    places.give_back(third, may_be_read=False)
    last = places.take()
    assert (last is third) != was_refused, "refusals cannot be set back"
    last.remove()
