"""The leak scan sees what carries a mark, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leaks

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and make cgroups")


def wait_forever(*arguments: str, **kind: Any) -> subprocess.Popen[bytes]:
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **kind)
    assert process.stdout.readline() == b"\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()


def test_a_process_is_found_by_its_command_its_environment_and_its_folder(folder: Path) -> None:
    mark = folder.name + "-mark"
    by = [
        wait_forever(mark),
        wait_forever(env={"SOMETHING": mark}),
    ]
    marked = folder / mark
    marked.mkdir()
    by.append(wait_forever(cwd=marked))
    seen = " ".join(leaks.found([mark]))
    assert all(f"process {process.pid}:" in seen for process in by)
    for process in by:
        end(process)
    assert leaks.left([mark]) == []


def test_what_carries_no_mark_of_ours_is_not_ours(folder: Path) -> None:
    process = wait_forever("stoker-of-somebody-else")
    assert leaks.found([folder.name + "-nobody"]) == []
    assert leaks.found([]) == []
    end(process)


def test_a_child_nobody_waited_for_is_found() -> None:
    process = wait_forever()
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert [thing for thing in leaks.zombies() if f"process {process.pid} " in thing]
    process.wait()
    process.stdout.close()
    assert not [thing for thing in leaks.zombies() if f"process {process.pid} " in thing]


@needs_root
def test_a_mount_is_found(folder: Path) -> None:
    place = folder / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert f"mount {place}" in leaks.found([str(folder)])
    finally:
        subprocess.run(["umount", place], check=True)
    assert leaks.left([str(folder)]) == []


@needs_root
def test_a_cgroup_is_found(node_id: str) -> None:
    parent = leaks.CGROUPS / "pids" if (leaks.CGROUPS / "pids").is_dir() else leaks.CGROUPS
    if not (parent / "cgroup.procs").exists():
        pytest.skip("no cgroup file system")
    cgroup = parent / f"stoker-{node_id}-test"
    cgroup.mkdir()
    try:
        assert leaks.found([node_id]) == [f"cgroup {cgroup}"]
    finally:
        cgroup.rmdir()
    assert leaks.left([node_id]) == []
