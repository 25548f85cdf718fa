"""What several functions import of the same packages is imported once, and each starts from that."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from journeys.running import WAIT_S, RunningNode, running

SLOW = """
import os, random, sys, time
time.sleep(0.15)
BORN = time.time_ns()
STATE = {}
SEEN = {
    "here": sorted(os.listdir(".")), "environment": sorted(os.environ), "arguments": sys.argv,
    "secret": os.path.exists("/app/function/secret.txt"), "host": os.uname().nodename,
}
"""
CALLS = """
import os, random
import slow

def lambda_handler(event, context):
    slow.STATE[context.function_name] = 1
    return {
        "born": slow.BORN, "seen": slow.SEEN, "state": sorted(slow.STATE), "name": NAME,
        "random": random.random(), "mine": os.environ.get("MINE"), "function": context.function_name,
    }
"""


@pytest.fixture
def node() -> Iterator[RunningNode]:
    with running("lean", STOKER_LOG_LEVEL="info") as one:
        yield one


def wheel(code: str, version: str = "1.0") -> bytes:
    """A package `slow` of one module."""
    name = f"slow-{version}"
    files = {
        "slow/__init__.py": code,
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: slow\nVersion: {version}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},,\n" for path in (*files, f"{name}.dist-info/RECORD")]
    return zipped({**files, f"{name}.dist-info/RECORD": "".join(lines)})


def zipped(files: dict[str, str | bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content)  # of no time: the same bytes each time
    return whole.getvalue()


def deploy(
    node: RunningNode,
    name: str,
    package: bytes,
    more: str = "",
    calls: str = CALLS,
    beside: dict[str, str] | None = None,
    **fields: Any,
) -> None:
    """A function that has that package installed."""
    version = next(version for version in ("1.1", "1.0") if f"slow-{version}".encode() in package)
    file = f"slow-{version}-py3-none-any.whl"
    files: dict[str, str | bytes] = {
        "main.py": f"NAME = {name!r}\n{more}\n{calls}",
        "requirements.txt": f"./{file}\n",
        "secret.txt": name,
        file: package,
        **(beside or {}),
    }
    answer = node.deploy(name, zipped(files), **{"reuse": "none", **fields})
    assert answer.status == 201, answer


def called(node: RunningNode, name: str) -> Any:
    answer = node.call(name)
    assert answer.status == 200, answer
    return answer.json


def share(node: RunningNode, package: bytes) -> None:
    """Have two functions pay for the import of it, of which one leaves something there."""
    deploy(node, "first", package, environment={"MINE": "first"})
    deploy(node, "second", package, "import slow\nslow.STATE['planted'] = 1", memory_mb=256)
    for name in ("first", "second"):
        called(node, name)
    wait_for_log(node, "slow as functions/[a-z]+ and others have it has a zygote")


def wait_for_log(node: RunningNode, said: str) -> None:
    give_up = time.monotonic() + 3 * WAIT_S
    while not re.search(said, node.log):
        assert time.monotonic() < give_up, node.log
        node.ask("GET", "/stats")


def test_the_first_call_of_a_function_starts_from_what_others_have_imported_of_the_same_packages(
    node: RunningNode,
) -> None:
    share(node, wheel(SLOW))
    for name in ("third", "fourth"):
        deploy(node, name, wheel(SLOW), environment={"MINE": name})
    third, fourth = called(node, "third"), called(node, "fourth")
    assert third["born"] == fourth["born"]
    for one, name in ((third, "third"), (fourth, "fourth")):
        assert [one[key] for key in ("state", "name", "mine", "function")] == [[name], name, name, name]
    assert third["random"] != fourth["random"]
    seen = third["seen"]
    assert (seen["here"], seen["secret"], seen["host"]) == ([".stoker"], False, "sandbox")
    assert "MINE" not in seen["environment"]
    assert not any(name in json.dumps(seen) for name in ("first", "second"))


def test_what_is_not_the_same_to_the_byte_or_not_wanted_starts_from_nothing_of_others(
    node: RunningNode,
) -> None:
    share(node, wheel(SLOW))
    deploy(node, "alike", wheel(SLOW))
    shared = called(node, "alike")["born"]
    others: dict[str, tuple[bytes, str, dict[str, Any]]] = {
        "another-version": (wheel(SLOW, "1.1"), "", {}),
        "other-bytes": (wheel(SLOW + "PLANTED = 1\n"), "", {}),
        "wants-none": (wheel(SLOW), "", {"zygote": False}),
        "own-interpreter": (wheel(SLOW), "", {"interpreter": "own"}),
        "calls-at-once": (wheel(SLOW), "", {"reuse": "process", "concurrency": 4}),
    }
    for name, (package, more, fields) in others.items():
        deploy(node, name, package, more, **fields)
        assert called(node, name)["born"] != shared, name


def test_who_does_not_name_a_package_or_has_a_module_of_such_a_name_imports_by_himself(
    node: RunningNode,
) -> None:
    share(node, wheel(SLOW))
    deploy(node, "alike", wheel(SLOW))
    shared = called(node, "alike")["born"]
    calls = CALLS.replace("import slow", "slow = __import__('slow')")
    deploy(node, "unnamed", wheel(SLOW), calls=calls)
    deploy(
        node,
        "shadows",
        wheel(SLOW),
        beside={"tempfile.py": "MINE = 1\n"},
        more="import tempfile\ntempfile.MINE",
    )
    assert called(node, "unnamed")["born"] != shared
    assert called(node, "shadows")["born"] == shared, "what was not imported may have any name"
    deploy(node, "shadows-it", wheel(SLOW), beside={"random.py": "def random(): return 4\n"})
    assert called(node, "shadows-it")["born"] != shared


def test_what_draws_random_numbers_is_not_imported_for_several(node: RunningNode) -> None:
    package = wheel(SLOW + "KEPT = os.urandom(8)\n")
    for name in ("first", "second"):
        deploy(node, name, package)
        called(node, name)
    wait_for_log(node, "slow as functions/[a-z]+ and others have it has no zygote.* draws random numbers")
    deploy(node, "third", package)
    assert called(node, "third")["born"] not in [called(node, name)["born"] for name in ("first", "second")]


def test_nothing_is_left_of_the_folder_in_which_packages_are_shown_alone(node: RunningNode) -> None:
    share(node, wheel(SLOW))
    node.wait_until_quiet()
    assert list((node.home / "staging").iterdir()) == []
