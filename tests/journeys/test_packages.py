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


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    """One on which two functions have paid for the import of `wheel(SLOW)`; one leaves something there."""
    with running("lean", STOKER_LOG_LEVEL="info") as one:
        deploy(one, "first", wheel(SLOW), environment={"MINE": "first"})
        deploy(one, "second", wheel(SLOW), "import slow\nslow.STATE['planted'] = 1", memory_mb=256)
        for name in ("first", "second"):
            called(one, name)
        wait_for_log(one, "slow as functions/[a-z]+ and others have it has a zygote")
        yield one


@pytest.fixture(scope="module")
def shared(node: RunningNode) -> int:
    """When it was imported for several."""
    deploy(node, "alike", wheel(SLOW))
    born: int = called(node, "alike")["born"]
    return born


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


def wait_for_log(node: RunningNode, said: str) -> None:
    give_up = time.monotonic() + 3 * WAIT_S
    while not re.search(said, node.log):
        assert time.monotonic() < give_up, node.log
        node.ask("GET", "/stats")


def test_the_first_call_of_a_function_starts_from_what_others_have_imported_of_the_same_packages(
    node: RunningNode, shared: int
) -> None:
    for name in ("third", "fourth"):
        deploy(node, name, wheel(SLOW), environment={"MINE": name})
    third, fourth = called(node, "third"), called(node, "fourth")
    assert third["born"] == fourth["born"] == shared
    for one, name in ((third, "third"), (fourth, "fourth")):
        assert [one[key] for key in ("state", "name", "mine", "function")] == [[name], name, name, name]
    assert third["random"] != fourth["random"]
    seen = third["seen"]
    assert (seen["here"], seen["secret"], seen["host"]) == ([".stoker"], False, "sandbox")
    assert "MINE" not in seen["environment"]
    assert not any(name in json.dumps(seen) for name in ("first", "second"))


OTHERS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "another-version": (wheel(SLOW, "1.1"), {}),
    "other-bytes": (wheel(SLOW + "PLANTED = 1\n"), {}),
    "wants-none": (wheel(SLOW), {"zygote": False}),
    "own-interpreter": (wheel(SLOW), {"interpreter": "own"}),
    "calls-at-once": (wheel(SLOW), {"reuse": "process", "concurrency": 4}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_the_same_to_the_byte_or_not_wanted_starts_from_nothing_of_others(
    node: RunningNode, shared: int, name: str
) -> None:
    package, fields = OTHERS[name]
    deploy(node, name, package, **fields)
    assert called(node, name)["born"] != shared


def test_who_does_not_name_a_package_or_has_a_module_of_such_a_name_imports_by_himself(
    node: RunningNode, shared: int
) -> None:
    deploy(node, "unnamed", wheel(SLOW), calls=CALLS.replace("import slow", "slow = __import__('slow')"))
    assert called(node, "unnamed")["born"] != shared
    deploy(node, "shadows", wheel(SLOW), beside={"random.py": "def random(): return 4\n"})
    assert called(node, "shadows")["born"] != shared
    deploy(node, "another-name", wheel(SLOW), beside={"tempfile.py": "MINE = 1\n"})
    assert called(node, "another-name")["born"] == shared, "what was not imported may have any name"


def test_what_draws_random_numbers_is_not_imported_for_several(node: RunningNode) -> None:
    package = wheel(SLOW + "KEPT = os.urandom(8)\n")
    for name in ("draws", "too"):
        deploy(node, name, package)
        called(node, name)
    wait_for_log(
        node, "slow as functions/(draws|too) and others have it has no zygote.* draws random numbers"
    )
    assert called(node, "draws")["born"] != called(node, "too")["born"]


def test_nothing_is_left_of_the_folder_in_which_packages_are_shown_alone(
    node: RunningNode, shared: int
) -> None:
    assert shared
    node.wait_for_stats(lambda _: not list((node.home / "staging").iterdir()))
