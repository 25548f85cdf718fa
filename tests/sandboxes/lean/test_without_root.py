"""Lean sandboxes of an ordinary user: held to what root's are, and a clear word where he may not have any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import leaks
import ordinary
from stoker.cli.exits import FAILED, NODE
from stoker.linux.cgroups import find_trees
from stoker.settings import Settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")

# What an ordinary user is to be, said in the words of the tests themselves.
SUITES = [
    "contracts/test_sandboxes.py",
    "sandboxes/lean",
    "journeys/test_functions_api.py",
    "journeys/test_zygotes.py",
    "linux",
]

# Namespaces in which he still is himself, but which are his: what is changed there, nobody else sees.
OWN = f"""
from stoker.linux.syscalls import *
prctl(PR_SET_DUMPABLE, 1)
unshare(CLONE_NEWUSER | CLONE_NEWNS)
for name, text in (("uid_map", "{{0}} {{0}} 1"), ("setgroups", "deny"), ("gid_map", "{{0}} {{0}} 1")):
    open("/proc/self/" + name, "w").write(text.format({ordinary.ORDINARY}))
"""
FORBIDDEN = {
    "no more of them": (
        OWN + "open('/proc/sys/user/max_user_namespaces', 'w').write('0')\n",
        "the sysctl user.max_user_namespaces is 0",
        "sysctl user.max_user_namespaces=15000; or start it with sudo",
    ),
    "no network of its own": (
        OWN + "open('/proc/sys/user/max_net_namespaces', 'w').write('0')\n",
        "a net namespace: No space left on device), because the sysctl user.max_net_namespaces is 0",
        "sysctl user.max_net_namespaces=15000",
    ),
    "a filter": (
        """
import errno, pyseccomp
filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
filter.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
filter.load()
""",
        "a seccomp filter forbids it",
        "--security-opt seccomp=unconfined",
    ),
    "a covered /proc": (
        OWN + "mount('/dev/null', '/proc/keys', None, MS_BIND)\n",
        "parts of /proc are covered here",
        "--security-opt systempaths=unconfined",
    ),
    "two overlays already": (
        OWN + "for _ in range(2): mount('overlay', '/usr', 'overlay', MS_RDONLY, 'lowerdir=/usr:/etc')\n",
        "an overlay over /usr: Invalid argument",
        "one container less around the node",
    ),
}
WAYS = pytest.mark.parametrize("way", FORBIDDEN)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITES)
def test_what_holds_for_root_holds_for_everybody(suite: str, folder: Path) -> None:
    done = ordinary.run(
        folder,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ordinary.ROOT)),
        *("-k", "not fake and not process", str(ordinary.ROOT / "tests" / suite)),
        STOKER_PROMISED="lean,python",
        HYPOTHESIS_STORAGE_DIRECTORY=str(folder),
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def lean_in(doctor: str) -> dict[str, object]:
    found: dict[str, object] = next(
        one for one in json.loads(doctor)["findings"] if one["what"] == "sandbox lean"
    )
    return found


@WAYS
def test_who_may_not_is_told_what_forbids_it_and_what_to_do(way: str, folder: Path) -> None:
    before, cause, remedy = FORBIDDEN[way]
    done = ordinary.run(folder, "-m", "stoker", "doctor", "--json", before=before)
    found = lean_in(done.stdout)
    assert (done.returncode, found["works"]) == (FAILED, False)
    assert cause in str(found["detail"])
    assert remedy in str(found["remedies"])
    assert "--sandbox process" in str(found["remedies"])


@WAYS
def test_a_node_that_may_not_have_walls_does_not_start_without_them(way: str, folder: Path) -> None:
    before, cause, remedy = FORBIDDEN[way]
    done = ordinary.run(folder, "-m", "stoker", "start", "0", "-d", before=before)
    assert done.returncode == NODE
    assert cause in done.stdout + done.stderr
    assert remedy in done.stdout + done.stderr


def test_a_node_of_who_may_not_runs_without_walls_when_told_to(folder: Path) -> None:
    before, _, _ = FORBIDDEN["no more of them"]
    done = ordinary.run(folder, "-m", "stoker", "start", "0", "-d", "--sandbox", "process", before=before)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ordinary.run(folder, "-m", "stoker", "stop", before=before).returncode == 0
    assert leaks.left([Settings(home=folder / ".local/share/stoker").node_id]) == []


def test_root_of_some_namespace_is_told_that_he_is_none(folder: Path) -> None:
    before = OWN.replace("{0} {0} 1", "0 {0} 1")
    done = ordinary.run(folder, "-m", "stoker", "doctor", "--json", before=before)
    found = lean_in(done.stdout)
    assert not found["works"]
    assert "this root has not all of root's powers" in str(found["detail"])


DIVIDED = """
import asyncio, sys
from pathlib import Path
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.types import MEBIBYTE, Limits
from sandboxes.lean.guests import EXECUTED, FORKED, hello, order, run

async def main():
    backend = Backend(Settings(node_id=sys.argv[1], cgroup_parent=sys.argv[2]), (FORKED, EXECUTED))
    await backend.open()
    weak = " ".join(each.what for each in backend.weaknesses())
    assert "watched" not in weak and "shares" not in weak, weak
    for launch in (FORKED, EXECUTED):
        limits = Limits(memory_mb=32, pids=20)
        sandbox = await backend.create(SandboxSpec(id=launch.name, launch=launch, limits=limits))
        await hello(sandbox)
        groups = Path(f"/proc/{sandbox.traces.pid}/cgroup").read_text()
        assert f"/{sys.argv[2]}/stoker-{sys.argv[1]}/" in groups, groups
        await order(sandbox, "kept = bytearray(200 << 20)")
        ending = await sandbox.ended
        assert ending.out_of_memory, ending
        assert 30 * MEBIBYTE < ending.usage.memory_peak_bytes <= 32 * MEBIBYTE, ending
        await sandbox.destroy()
    await backend.close()

asyncio.run(main())
print("held")
"""


@pytest.fixture
def given(node_id: str) -> Iterator[str]:
    """The name of a group in every tree that is the ordinary user's, as a service manager would make it."""
    trees = find_trees()
    if not {"memory", "pids", "cpu"} <= frozenset().union(*(tree.controllers for tree in trees)):
        pytest.skip("no cgroups on this machine that could be given away")
    name = f"given-{node_id}"
    for tree in trees:
        folder = tree.root / name
        folder.mkdir()
        for path in (folder, folder / "cgroup.procs", *folder.glob("tasks"), *folder.glob("cgroup.subtree*")):
            os.chown(path, ordinary.ORDINARY, ordinary.ORDINARY)
    yield name
    for tree in trees:
        (tree.root / name).rmdir()


def test_groups_that_a_user_was_given_limit_as_roots_do(given: str, node_id: str, folder: Path) -> None:
    done = ordinary.run(folder, "-c", DIVIDED, node_id, given)
    assert done.stdout == "held\n", done.stderr
    assert leaks.left([f"stoker-{node_id}"]) == []


def test_a_group_that_is_nobodys_to_give_is_said(folder: Path) -> None:
    done = ordinary.run(folder, "-m", "stoker", "start", "0", "-d", "-s", "cgroup_parent=no/such")
    assert done.returncode == NODE
    assert (
        "cgroup_parent names 'no/such', and user 41234 may make no cgroup there" in done.stdout + done.stderr
    )


WITHOUT_GROUPS = """
from stoker.linux.mounts import leave_the_hosts
from stoker.linux.syscalls import umount
leave_the_hosts()
umount("/sys/fs/cgroup")
import os, sys
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_root_without_cgroups_has_memory_watched_too(folder: Path) -> None:
    if not os.path.ismount("/sys/fs/cgroup"):
        pytest.skip("there is nothing to take away")
    suite = str(ordinary.ROOT / "tests" / "sandboxes" / "lean" / "test_endings.py")
    pytest_too = ("-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "-k", "memory or measured or bomb")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GROUPS, *pytest_too],
        cwd=ordinary.ROOT,
        env=os.environ | {"STOKER_PROMISED": "lean"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
