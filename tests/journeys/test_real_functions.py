"""Real functions with their true dependencies, over HTTP and S3, in both sandboxes and all three modes.

What a right answer is, a plain run of the same function outside of any node says.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import real_functions
import seaweed
from journeys.running import Answer, RunningNode, running
from real_functions import REAL, Real

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BY_NAME = {real.name: real for real in REAL}
MODES = ("none", "sandbox", "process")
WARM = "warm"
"""The suffix of packages that say `reuse = process` in their own config.json."""

EVENTS: dict[str, list[dict[str, object]]] = {
    "html": [{"username": "Ada", "random_len": 10}, {"username": "Grace", "random_len": 33}],
    "htmljs": [{"username": "Ada", "random_len": 10}, {"username": "Grace", "random_len": 33}],
    "pagerank": [{"size": 40 + 10 * seed, "seed": seed} for seed in range(5)],
    "mst": [{"size": 40 + 10 * seed, "seed": seed} for seed in range(5)],
    "bfs": [{"size": 40 + 10 * seed, "seed": seed} for seed in range(5)],
    "nap": [{"sleep": 0.05 * number} for number in range(1, 6)],
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="stoker-real-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def benchmarks(place: Path) -> Path:
    return real_functions.download(place)


@pytest.fixture(scope="module")
def expected(place: Path, benchmarks: Path) -> dict[str, list[Any]]:
    """The right answers to `EVENTS`, where a plain run can tell them."""
    real_functions.install(place / "site")
    return {
        name: real_functions.answers(BY_NAME[name], benchmarks, place / "site", EVENTS[name])
        for name in ("pagerank", "mst", "bfs", "nap")
    }


@pytest.fixture(scope="module")
def packages(benchmarks: Path) -> dict[str, bytes]:
    """Every file of the prefix that nodes take packages from."""
    files: dict[str, bytes] = {}
    for real in REAL:
        files[f"{real.name}.zip"] = real_functions.package(real, benchmarks, real.name, {})
        name = real.name + WARM
        files[f"{name}.zip"] = real_functions.package(real, benchmarks, name, {"reuse": "process"})
    files["lists.txt"] = "\n".join(name.removesuffix(".zip") for name in files).encode()
    return files


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def over_http(place: Path, packages: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """The environment of a node that finds the packages on a web server."""
    store = place / "store"
    store.mkdir()
    for name, data in packages.items():
        (store / name).write_bytes(data)
    handler = functools.partial(Quiet, directory=str(store))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {"USER_FUNCTION_URL_PREFIX": f"http://127.0.0.1:{server.server_port}/"}
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def over_s3(place: Path, packages: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """The environment of a node that finds the packages in a bucket."""
    if seaweed.problem():
        pytest.skip(seaweed.problem())
    folder = place / "weed"
    folder.mkdir()
    with seaweed.serving(folder) as environ:
        seaweed.fill(environ, "packages", {f"real/{name}": data for name, data in packages.items()})
        yield {**environ, "USER_FUNCTION_URL_PREFIX": "s3://packages/real/"}


NODES = [
    pytest.param(("lean", "over_http"), id="lean-http"),
    pytest.param(("process", "over_s3"), id="process-s3"),
]


@pytest.fixture(scope="module", params=NODES)
def node(request: pytest.FixtureRequest) -> Iterator[RunningNode]:
    """A node that has prepared every function of the prefix."""
    sandbox, store = request.param
    with running(sandbox, **request.getfixturevalue(store)) as one:
        prepared = one.ask("GET", "/prepare", patience_s=200)  # it builds them all
        assert (prepared.status, prepared.text) == (200, "done"), f"{prepared.text}\n{one.log}"
        yield one


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, node: RunningNode) -> Iterator[str]:
    """How sandboxes are reused: the front's default, its rest mode, or what a package itself asks for."""
    name: str = request.param
    knob(node, "true" if name == "sandbox" else "false")
    yield name
    knob(node, "false")


def knob(node: RunningNode, value: str) -> None:
    assert node.ask("GET", f"/configure?using_rest_mode={value}").status == 200


def execute(node: RunningNode, mode: str, name: str, event: dict[str, object]) -> Answer:
    answer = node.execute(name + (WARM if mode == "process" else ""), event)
    assert answer.status == 200, f"{name} {mode}: {answer}\n{node.log[-3000:]}"
    return answer


def check(real: Real, event: dict[str, object], result: Any, right: Any) -> None:
    """Whether this is the answer to this event and to no other."""
    if real.language == "nodejs":
        check_html(result, event)
    elif real.name == "html":
        check_html(result["result"], event)
    else:
        assert result["result"] == right["result"], (real.name, event)


def check_html(html: str, event: dict[str, object]) -> None:
    assert f"<p>Welcome {event['username']}!</p>" in html
    assert len(re.findall(r"<li>\d+</li>", html)) == event["random_len"]


def right_answer(expected: dict[str, list[Any]], name: str, number: int) -> Any:
    return expected[name][number] if name in expected else None


@pytest.mark.parametrize("name", BY_NAME)
def test_a_real_function_answers_as_it_does_outside(
    node: RunningNode, mode: str, name: str, expected: dict[str, list[Any]]
) -> None:
    for number, event in enumerate(EVENTS[name][:2]):
        answer = execute(node, mode, name, event)
        check(BY_NAME[name], event, answer.json["Result"], right_answer(expected, name, number))
        meta = answer.json["Meta"]
        assert meta["ImageBuilt"] is False
        assert meta["ImageName"] == f"hf_{name}" + {"process": WARM, "sandbox": "_rest", "none": ""}[mode]
        assert answer.json["ExecutionTime"] >= answer.json["InternalExecutionTime"]


def test_twenty_calls_over_four_functions_each_get_their_own_answer(
    node: RunningNode, mode: str, expected: dict[str, list[Any]]
) -> None:
    names = ("pagerank", "mst", "bfs", "nap")
    calls = [(name, number) for number in range(5) for name in names]

    def one(call: tuple[str, int]) -> Any:
        name, number = call
        return execute(node, mode, name, EVENTS[name][number]).json["Result"]

    with ThreadPoolExecutor(len(calls)) as callers:
        results = list(callers.map(one, calls))
    for (name, number), result in zip(calls, results, strict=True):
        check(BY_NAME[name], EVENTS[name][number], result, expected[name][number])


def test_the_answers_of_different_callers_differ(expected: dict[str, list[Any]]) -> None:
    """Else the test above could not tell a mixed-up answer."""
    for name in ("pagerank", "bfs", "nap"):
        told = {json.dumps(answer["result"]) for answer in expected[name]}
        assert len(told) == len(EVENTS[name])
