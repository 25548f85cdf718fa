"""What a function's import has made is kept, and its later sandboxes start from that."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journeys.running import RunningNode, running, together
from stoker import plugins

SLOW = "import time; time.sleep(0.1)\n"  # twice what is worth a zygote
SEES = """
import os, random, secrets, signal, ssl, sys, tempfile, threading, time, uuid

BORN = os.urandom(8).hex()
AT_IMPORT = [random.random(), ssl.RAND_bytes(4), uuid.uuid1(), tempfile.mktemp(), time.time()]
OBJECT = object()
signal.signal(signal.SIGUSR1, lambda number, frame: HEARD.append(number))
HEARD = []

def lambda_handler(event, context):
    os.kill(os.getpid(), signal.SIGUSR1)
    state = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    left = sorted(os.listdir("/tmp"))
    open("/tmp/left", "w").close()
    return {
        "born": BORN,
        "fresh": {
            "random": random.random(), "bits": random.getrandbits(64), "ssl": ssl.RAND_bytes(16).hex(),
            "uuid1": str(uuid.uuid1()), "uuid4": str(uuid.uuid4()), "name": tempfile.mktemp(),
            "secret": secrets.token_hex(8), "call": context.invocation_id,
        },
        "age": time.time() - AT_IMPORT[-1],
        "numbers": [os.getpid(), threading.get_native_id(), threading.main_thread().native_id],
        "clock": time.clock_gettime(time.pthread_getcpuclockid(threading.get_ident())) >= 0,
        "heard": HEARD,
        "left": left,
        "open": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:5],
        "more": len(os.listdir("/proc/self/fd")),
        "walls": [state[key].strip() for key in
                  ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp",
                   "Seccomp_filters", "SigBlk", "SigIgn")],
        "spaces": {name: os.readlink("/proc/self/ns/" + name)
                   for name in ("pid", "mnt", "ipc", "uts", "net", "user", "cgroup")},
        "threads": threading.active_count(),
        "stack": deep(3000),
    }

def deep(left):
    return 1 + deep(left - 1) if left else 0
sys.setrecursionlimit(10_000)
"""
BORN = "import os\nBORN = os.urandom(8).hex()\ndef lambda_handler(event, context):\n    return BORN\n"
SECRET = """import re
def lambda_handler(event, context):
    return {"hash": hash("a secret word"), "address": id(re)}
"""
# What stays behind when the memory is carried elsewhere, so that it must not be.
LEAVES = {
    "an open file": "import os; FILE = open(os.__file__)",
    "a socket": "import socket; LINE = socket.socketpair()",
    "a thread": "import threading; threading.Timer(99, print).start()",
    "a process": "import subprocess; CHILD = subprocess.Popen(['sleep', '99'])",
    "a file in scratch": "open('/tmp/cache', 'w').close()",
    "shared memory": "import mmap; SHARED = mmap.mmap(-1, 4096)",
    "a timer": "import signal; signal.setitimer(signal.ITIMER_VIRTUAL, 3000)",
}


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    with running("lean", STOKER_LOG_LEVEL="info") as one:
        yield one


def deploy(node: RunningNode, name: str, code: str, **fields: Any) -> None:
    answer = node.deploy(name, code, reuse="none", **fields)
    assert answer.status == 201, answer


def remove(node: RunningNode, name: str) -> None:
    assert node.ask("DELETE", f"/functions/{name}").status == 200
    node.wait_for_pool(lambda pool: pool["zygotes"] == 0)


def called(node: RunningNode, name: str) -> Any:
    answer = node.call(name)
    assert answer.status == 200, answer
    return answer.json


def call_with_zygote(node: RunningNode, name: str) -> Any:
    """Call once, and wait for what its import made to be kept; what the call answered."""
    first = called(node, name)
    node.wait_for_pool(lambda pool: pool["zygotes"] == 1)
    node.wait_until_quiet()
    return first


def until_born_alike(node: RunningNode, name: str) -> str:
    """The word that two sandboxes in turn have in common."""
    call_with_zygote(node, name)
    words = [called(node, name)]
    while len(words) < 50:
        words.append(called(node, name))
        if words[-1] == words[-2]:
            return words[-1]
    raise AssertionError(f"no two of {words} are alike")


def files_kept(node: RunningNode) -> int:
    found = 0
    for name in os.listdir(f"/proc/{node.pid}/fd"):
        try:
            found += "memfd:zygote" in os.readlink(f"/proc/{node.pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return found


def test_what_an_import_has_made_is_shared_and_what_must_differ_does(node: RunningNode) -> None:
    deploy(node, "sees", SLOW + SEES)
    first = call_with_zygote(node, "sees")
    several = together(*[lambda: called(node, "sees")] * 4) + [called(node, "sees") for _ in range(4)]
    several = [one for one in several if one["born"] == several[-1]["born"]]
    assert len(several) >= 5
    assert several[0]["born"] != first["born"]
    for key in first["fresh"]:
        values = [one["fresh"][key] for one in (first, *several)]
        assert len(set(values)) == len(values), f"{key} came twice: {values}"
    ages = [one["age"] for one in several[-4:]]  # of those that were called in turn
    assert ages[0] > 0
    assert ages == sorted(set(ages))
    remove(node, "sees")


def test_what_starts_from_a_zygote_has_the_walls_and_numbers_of_any_other(node: RunningNode) -> None:
    deploy(node, "walls", SLOW + SEES)
    first = call_with_zygote(node, "walls")
    one, other = call_until_thawed(node, "walls", first), called(node, "walls")
    uids = [one["walls"][:2], other["walls"][:2]]
    assert all(word == "65534" for pair in uids for words in pair for word in words.split())
    for key in ("walls", "numbers", "heard", "left", "open", "more", "threads", "stack", "clock"):
        assert one[key] == other[key] == first[key], key
    assert one["left"] == []
    spaces = [together(lambda: called(node, "walls"), lambda: called(node, "walls"))]
    for pair in spaces:
        for kind, where in pair[0]["spaces"].items():
            assert where != pair[1]["spaces"][kind], f"both are in {where}"
    remove(node, "walls")


def call_until_thawed(node: RunningNode, name: str, first: Any) -> Any:
    before = first
    for _ in range(50):
        now = called(node, name)
        if now["born"] == before["born"]:
            return now
        before = now
    raise AssertionError("nothing starts from a zygote")


def test_a_function_can_say_that_it_wants_no_zygote(node: RunningNode) -> None:
    deploy(node, "wants-none", SLOW + BORN, zygote=False)
    deploy(node, "wants-one", SLOW + BORN)
    until_born_alike(node, "wants-one")  # there has been time for one of the other
    words = [called(node, "wants-none") for _ in range(3)]
    assert len(set(words)) == 3
    node.wait_for_pool(lambda pool: pool["zygotes"] == 1)
    assert node.ask("GET", "/functions/wants-none").json["data"]["config"]["zygote"] is False
    assert node.ask("DELETE", "/functions/wants-none").status == 200
    remove(node, "wants-one")


def test_a_short_import_is_done_again(node: RunningNode) -> None:
    deploy(node, "short", BORN)
    deploy(node, "long", SLOW + BORN)
    called(node, "short")
    until_born_alike(node, "long")
    node.wait_for_pool(lambda pool: pool["zygotes"] == 1)
    assert len({called(node, "short") for _ in range(3)}) == 3
    assert node.ask("DELETE", "/functions/short").status == 200
    remove(node, "long")


@pytest.mark.parametrize("what", LEAVES)
def test_an_import_that_leaves_more_than_memory_is_done_again(node: RunningNode, what: str) -> None:
    name = what.replace(" ", "-")
    deploy(node, name, SLOW + LEAVES[what] + "\n" + BORN)
    words = [called(node, name)]
    node.wait_for_stats(lambda _: f"functions/{name} has no zygote" in node.log)
    words += [called(node, name) for _ in range(2)]
    assert len(set(words)) == 3
    remove(node, name)


def test_another_revision_has_another_zygote_and_nothing_is_left_of_the_first(node: RunningNode) -> None:
    deploy(node, "changes", SLOW + BORN)
    before = until_born_alike(node, "changes")
    change = json.dumps({"environment": {"A": "1"}}).encode()
    assert node.ask("PUT", "/functions/changes", change).status == 200
    assert called(node, "changes") != before
    assert until_born_alike(node, "changes") != before
    assert files_kept(node) == 1
    remove(node, "changes")
    assert files_kept(node) == 0


def test_shared_and_kept_sandboxes_start_from_a_zygote_too(node: RunningNode) -> None:
    for reuse, more in (("process", {}), ("sandbox", {}), ("process", {"concurrency": 4})):
        name = f"kept-{reuse}-{len(more)}"
        assert node.deploy(name, SLOW + SEES, reuse=reuse, **more).status == 201
        node.wait_until_quiet()
        called(node, name)
        node.wait_for_pool(lambda pool: pool["zygotes"] == 1)
        answers = together(*[lambda name=name: called(node, name)] * 6)
        assert len({one["fresh"]["random"] for one in answers}) == 6
        remove(node, name)


def test_every_python_that_is_here_starts_from_zygotes(node: RunningNode) -> None:
    versions = [one.version for one in plugins.load("runtimes", "python").Runtime().interpreters()]
    for version in versions:
        name = f"of-{version}"
        deploy(node, name, SLOW + BORN, runtime=f"python{version}")
        until_born_alike(node, name)
        remove(node, name)
    assert versions


def test_a_function_can_have_an_interpreter_of_its_own(node: RunningNode) -> None:
    deploy(node, "own", SLOW + SECRET, interpreter="own")
    deploy(node, "forked", SECRET)
    own = [called(node, "own") for _ in range(3)]
    forked = [called(node, "forked") for _ in range(3)]
    for key in ("hash", "address"):
        assert len({one[key] for one in own}) == 3, key
        assert {one[key] for one in forked} == {forked[0][key]}, key
    assert node.ask("GET", "/functions/own").json["data"]["config"]["interpreter"] == "own"
    node.wait_until_quiet()
    assert node.ask("GET", "/stats").json["data"]["pool"]["zygotes"] == 0
    assert node.deploy("shares", SECRET, interpreter="own", reuse="process").status == 201
    assert called(node, "shares")["hash"] == called(node, "shares")["hash"]
    for name in ("own", "forked", "shares"):
        assert node.ask("DELETE", f"/functions/{name}").status == 200


def test_each_life_of_the_helper_has_another_secret_of_hash() -> None:
    with running("lean") as node:
        deploy(node, "tells", SECRET)
        lives = []
        for _ in range(2):
            lives.append(called(node, "tells")["hash"])
            helper = children(children(node.pid)[0])[0]
            os.kill(helper, signal.SIGKILL)
        lives.append(called(node, "tells")["hash"])
        assert len(set(lives)) == 3


@pytest.fixture(scope="module")
def renewing() -> Iterator[RunningNode]:
    """Its interpreters are started anew every few seconds."""
    with running("lean", STOKER_RENEW_S="4") as one:
        yield one


def test_a_secret_of_hash_is_of_use_for_no_longer_than_the_settings_say(renewing: RunningNode) -> None:
    """And who lives when an interpreter is renewed is not disturbed."""
    assert renewing.deploy("stays", SECRET, reuse="process").status == 201
    deploy(renewing, "tells", SECRET)
    stays, secrets = called(renewing, "stays"), [called(renewing, "tells")["hash"]]
    while secrets[-1] == secrets[0] or len(set(secrets[-10:])) > 1:  # spares of the old one are used up
        secrets.append(called(renewing, "tells")["hash"])
        assert called(renewing, "stays") == stays
    for name in ("tells", "stays"):
        assert renewing.ask("DELETE", f"/functions/{name}").status == 200


def test_what_is_kept_of_imports_is_made_anew_before_the_old_interpreter_goes(renewing: RunningNode) -> None:
    """No call imports by itself meanwhile: each answers what another one has answered too."""
    deploy(renewing, "kept", SLOW + BORN.replace("return BORN", "return [BORN, hash('a secret word')]"))
    call_with_zygote(renewing, "kept")
    words = [called(renewing, "kept")]
    while len({born for born, _ in words[:-2]}) < 2:
        words.append(called(renewing, "kept"))
    times = [sum(one == word for one in words) for word in words[:-2]]
    assert min(times) > 1, words
    secrets = dict(words)
    assert len(set(secrets.values())) > 1
    assert renewing.ask("DELETE", "/functions/kept").status == 200
    renewing.wait_for_pool(lambda pool: pool["zygotes"] == 0)


def test_after_the_helper_was_killed_imports_are_done_again_and_kept_anew() -> None:
    with running("lean") as node:
        deploy(node, "again", SLOW + BORN)
        before = until_born_alike(node, "again")
        helper = children(children(node.pid)[0])[0]
        os.kill(helper, signal.SIGKILL)
        words = [called(node, "again") for _ in range(2)]
        assert before not in words
        assert until_born_alike(node, "again") not in (before, *words[:1])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
