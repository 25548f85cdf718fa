"""Whole nodes that several journeys share: starting one takes a second, and each must outlive bad input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from journeys.running import HELLO, RunningNode, running

SANDBOXES = ["lean", "process"]


@pytest.fixture(scope="module", params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest) -> str:
    """The backend that a journey's node runs its functions in."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def node(sandbox: str) -> Iterator[RunningNode]:
    """A node with a healthy function `hello`, in both doors."""
    with running(sandbox) as one:
        one.package("hello", {"main.py": HELLO})
        yield one


@pytest.fixture
def healthy_after(node: RunningNode) -> Iterator[None]:
    """After the test the same process still serves, and no call and no sandbox is at work in it."""
    before = node.pid
    yield
    assert node.execute("hello", {"n": 1}).json["Result"]["event"] == {"n": 1}
    assert node.pid == before
    node.wait_until_quiet()
