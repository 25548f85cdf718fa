"""The leak scan sees what carries a mark, and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leaks
from stoker.sandboxes.lean import Settings

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


@needs_root
def test_a_process_is_found_by_its_user(node_id: str) -> None:
    process = wait_forever(user=Settings(node_id=node_id).first_uid + 7, group=65534, env={}, cwd="/")
    try:
        assert [thing for thing in leaks.found([node_id]) if thing.startswith(f"process {process.pid}:")]
    finally:
        end(process)
    assert leaks.left([node_id]) == []


@needs_root
def test_a_process_of_a_live_node_with_the_same_users_is_that_nodes(node_id: str) -> None:
    parent = leaks.CGROUPS / "pids" if (leaks.CGROUPS / "pids").is_dir() else leaks.CGROUPS
    if not (parent / "cgroup.procs").exists():
        pytest.skip("no cgroup file system")
    cgroup = parent / f"stoker-{node_id[::-1]}"
    process = wait_forever(user=Settings(node_id=node_id).first_uid + 7, group=65534, env={}, cwd="/")
    assert len(leaks.found([node_id])) == 1
    cgroup.mkdir()
    try:
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        assert leaks.found([node_id]) == []
    finally:
        end(process)
        cgroup.rmdir()


@needs_root
def test_a_network_interface_is_found_by_its_name_or_its_alias(node_id: str) -> None:
    tried = ip("link", "add", f"st-{node_id}", "type", "veth", "peer", "name", f"sp-{node_id}")
    if tried.returncode:
        pytest.skip(f"no interface can be made here: {tried.stderr.strip()}")
    try:
        assert leaks.found([node_id]) == [f"interface sp-{node_id}", f"interface st-{node_id}"]
    finally:
        ip("link", "delete", f"st-{node_id}")
    assert leaks.left([node_id]) == []


@needs_root
def test_a_network_namespace_with_a_name_is_found(node_id: str) -> None:
    tried = ip("netns", "add", f"stoker-{node_id}")
    if tried.returncode:
        pytest.skip(f"no namespace can be made here: {tried.stderr.strip()}")
    try:
        seen = leaks.found([node_id])
        assert f"file /run/netns/stoker-{node_id}" in seen
        assert f"mount /run/netns/stoker-{node_id}" in seen
    finally:
        ip("netns", "delete", f"stoker-{node_id}")
    assert leaks.left([node_id]) == []


@needs_root
def test_a_table_of_nftables_is_found(node_id: str) -> None:
    if shutil.which("nft") is None:
        pytest.skip("no nft here")
    subprocess.run(["nft", "add", "table", "inet", f"stoker-{node_id}"], check=True)
    try:
        assert leaks.found([node_id]) == [f"nftables table inet stoker-{node_id}"]
    finally:
        subprocess.run(["nft", "delete", "table", "inet", f"stoker-{node_id}"], check=True)
    assert leaks.left([node_id]) == []


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("ip") is None:
        pytest.skip("no ip here")
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def test_a_descriptor_that_stays_open_is_found() -> None:
    before = leaks.descriptors()
    ours, theirs = socket.socketpair()
    assert len(leaks.descriptors() - before) == 2
    ours.close()
    theirs.close()
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    (seen,) = leaks.descriptors() - before
    assert seen.startswith("net:[")
    os.close(namespace)
    assert leaks.descriptors() == before


def test_a_machine_that_passes_packets_on_since_the_run_is_found() -> None:
    off, on = {"v4": "0", "v6": "0"}, {"v4": "1", "v6": "0"}
    assert leaks.forwarding().keys() == set(map(str, leaks.FORWARDING))
    assert leaks.switched_on(on, off) == leaks.switched_on(on, on) == []
    if not list(leaks.tables(["stoker"])):
        assert leaks.switched_on(off, on) == ["v4 is 1, and was 0"]


def warden(source: str) -> subprocess.CompletedProcess[str]:
    """A run of tests that does no more than this."""
    command = [sys.executable, str(Path(leaks.__file__).with_name("warden.py")), "-c", source]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_that_leaves_nothing_is_none_to_fail() -> None:
    done = warden("import tempfile; tempfile.TemporaryFile()")
    assert (done.returncode, done.stderr) == (0, "")
    assert warden("import sys; sys.exit(3)").returncode == 3


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import tempfile; tempfile.mkdtemp(prefix='forgotten')", "left behind: file /"),
        ("import subprocess; subprocess.Popen(['sleep', '1000'], env={})", "left behind: process "),
        (
            "import os\nif not os.fork():\n    os.setsid()\n    os.execl('/bin/sleep', 'sleep', '999')",
            "left behind: process ",
        ),
        (
            "import leaks, os, tempfile\nleaks.watch('marked-of-a-run')\n"
            "os.mkdir('/dev/shm/marked-of-a-run')",
            "left behind: file /dev/shm/marked-of-a-run",
        ),
    ],
)
def test_a_run_that_leaves_something_fails_and_names_it(source: str, named: str) -> None:
    here = str(Path(leaks.__file__).parent)
    done = warden(f"import sys; sys.path.insert(0, {here!r})\n{source}")
    shutil.rmtree("/dev/shm/marked-of-a-run", ignore_errors=True)
    assert done.returncode == 1
    assert done.stderr.startswith(named)


def test_what_a_worker_of_a_run_leaves_fails_the_run_and_is_named(folder: Path) -> None:
    """No worker prints anything itself."""
    (folder / "test_leaky.py").write_text("import os\n\ndef test():\n    os.open('/dev/zero', os.O_RDONLY)\n")
    tests = Path(leaks.__file__).parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "1",
        "-p",
        "conftest",
        "-c",
        tests.parent / "pyproject.toml",
    ]
    path = os.pathsep.join(map(str, (tests, tests.parent / "src")))
    done = subprocess.run(
        [*command, "--rootdir", folder, folder],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "descriptor of /dev/zero" in done.stdout
