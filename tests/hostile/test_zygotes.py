"""Functions that behave until somebody makes their zygote, and then attack: they have none, that is all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from journeys.running import RunningNode, running
from journeys.test_packages import deploy, wheel
from stoker.pool.freezing import LEAST_ALLOWED_S

KNOWS = r"""
import ctypes, fcntl, mmap, os, socket, struct, sys, time

def is_frozen():
    frame = sys._getframe()
    while frame is not None:
        load = frame.f_locals.get("load")
        if isinstance(load, dict) and load.get("freeze"):
            return True
        frame = frame.f_back
    return False

def hand_over(file, frame=b"\0\0\0\x08\x82\0\0\0\0" + b"\0\0\0\x01" * 2):
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", file))
    socket.socket(fileno=3).sendmsg([frame], [rights])
    time.sleep(99)

def memory(text, seals=0b1111, size=0):
    file = os.memfd_create("mine", os.MFD_ALLOW_SEALING)
    os.write(file, text)
    if size:
        os.ftruncate(file, size)
    fcntl.fcntl(file, 1033, seals)
    return file

def lineage():
    for line in open("/proc/self/maps"):
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        if end - start == 4096 and "r-xp" in line and line.split()[4] == "0":
            return ctypes.string_at(start + 4096 + 64, 16)
    raise SystemExit("no anchor")

def doctored(*words):
    script = struct.pack("=7q", *words, *[0] * (7 - len(words)))
    body = bytes(56) + script
    head = struct.pack("=8s16sQQQ", b"stoker-1", lineage(), 4096, len(script), 2)
    return memory(head.ljust(4096, b"\0") + body + b"{}")

time.sleep(0.1)
BORN = os.urandom(8).hex()
if is_frozen():
    ATTACK

def lambda_handler(event, context):
    return BORN
"""
ATTACKS = {
    "hangs": "time.sleep(99)",
    "exits": "os._exit(0)",
    "aborts": "os.abort()",
    "raises": "raise RuntimeError",
    "bombs": "[os.fork() for _ in range(99)]; time.sleep(99)",
    "eats": "HELD = [bytearray(1 << 20) for _ in range(1 << 20)]",
    "floods": "[os.write(3, b'\\xff' * 65536) for _ in range(99)]; time.sleep(99)",
    "prints": "[os.write(1, b'x' * 65536) for _ in range(999)]; os._exit(1)",
    "hands-over-nothing": "hand_over(os.open('/dev/null', os.O_RDWR))",
    "hands-over-a-folder": "hand_over(os.open('/', os.O_PATH))",
    "hands-over-a-pipe": "hand_over(os.pipe()[0])",
    "hands-over-what-can-change": "hand_over(memory(b'x' * 4096, seals=0b0111))",
    "hands-over-what-is-huge": "hand_over(memory(b'x', size=257 << 20))",
    "hands-over-noise": "hand_over(memory(os.urandom(65536)))",
    "hands-over-a-bad-script": "hand_over(doctored(9, 8, 7, 6, 5, 4, 3))",
    "hands-over-a-script-that-unmaps-all": "hand_over(doctored(11, 0, (1 << 47) - 4096))",
    "hands-over-a-script-that-leads-nowhere": "hand_over(doctored(-1, 8))",
    "promises-much": "hand_over(memory(b'x'), frame=b'\\xff\\xff\\xff\\xff\\x82\\0\\0\\0\\0')",
}
UNREMARKABLE = "import os\ndef lambda_handler(event, context):\n    return event\n"


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    with running("lean") as one:
        assert one.deploy("beside", UNREMARKABLE).status == 201
        yield one


def wait_for_log(node: RunningNode, text: str) -> None:
    give_up = time.monotonic() + 2 * LEAST_ALLOWED_S
    while text not in node.log:
        assert time.monotonic() < give_up, f"no {text!r} in the log"
        node.call("beside")


@pytest.mark.parametrize("attack", ATTACKS)
def test_who_attacks_while_a_zygote_is_made_has_none(node: RunningNode, attack: str) -> None:
    code = KNOWS.replace("ATTACK", ATTACKS[attack])
    assert node.deploy(attack, code, reuse="none", timeout="1s").status == 201
    words = [node.call(attack)]
    assert words[0].status == 200, words
    wait_for_log(node, f"functions/{attack} has no zygote")
    words += [node.call(attack) for _ in range(2)]
    assert [word.status for word in words] == [200] * 3
    assert len({word.json for word in words}) == 3
    assert node.call("beside", {"n": 1}).json == {"n": 1}
    assert node.ask("DELETE", f"/functions/{attack}").status == 200
    node.wait_for_pool(lambda pool: pool["zygotes"] == 0)
    node.wait_until_quiet()


QUICK = (
    "exits",
    "raises",
    "hands-over-noise",
    "hands-over-what-can-change",
    "hands-over-a-bad-script",
    "hands-over-a-script-that-leads-nowhere",
)


@pytest.mark.parametrize("attack", QUICK)
def test_a_package_that_attacks_while_it_is_imported_for_several_is_imported_by_each(
    node: RunningNode, attack: str
) -> None:
    code = KNOWS.replace("ATTACK", ATTACKS[attack]).partition("def lambda_handler")[0]
    code = code.replace("os.urandom(8).hex()", "time.time_ns()")
    calls = "import slow\ndef lambda_handler(event, context):\n    return slow.BORN\n"
    for name in ("one", "other"):
        deploy(node, f"{name}-{attack}", wheel(code), calls=calls)
    words = [node.call(f"{name}-{attack}") for name in ("one", "other")]
    wait_for_log(node, f"-{attack} and others have it has no zygote")
    words += [node.call(f"{name}-{attack}") for name in ("one", "other")]
    assert [word.status for word in words] == [200] * 4, words
    assert len({word.json for word in words}) == 4
    assert node.call("beside", {"n": 1}).json == {"n": 1}
    for name in ("one", "other"):
        assert node.ask("DELETE", f"/functions/{name}-{attack}").status == 200
    node.wait_until_quiet()
