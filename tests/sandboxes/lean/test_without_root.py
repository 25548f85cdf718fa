"""Lean sandboxes of an ordinary user: held to what root's are, and a clear word where he may not have any."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import leaks
import ordinary
from stoker.cli.exits import FAILED, NODE
from stoker.settings import Settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")

# What an ordinary user is to be, said in the words of the tests themselves.
SUITES = ["contracts/test_sandboxes.py", "sandboxes/lean", "journeys/test_bad_input.py", "linux"]

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
