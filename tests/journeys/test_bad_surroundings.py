"""What surrounds a node goes wrong: the source of code, the disk, the port, the files of the daemon."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from journeys.running import HELLO, RunningNode, free_port, running, together


def test_an_unreachable_code_prefix_fails_each_call_with_its_address(sandbox: str) -> None:
    prefix = f"http://127.0.0.1:{free_port()}/packages/"
    with running(sandbox, USER_FUNCTION_URL_PREFIX=prefix) as node:
        for _ in range(2):
            answer = node.execute("W1")
            assert answer.status == 500
            assert answer.json["Message"] == f"{prefix}W1.zip cannot be reached: Connection refused"
        assert node.ask("GET", "/health").status == 200
        assert node.ask("GET", "/prepare").status == 500


def test_without_a_code_prefix_the_answer_says_what_to_set(sandbox: str) -> None:
    with running(sandbox, USER_FUNCTION_URL_PREFIX="") as node:
        answer = node.execute("W1")
        assert answer.status == 500
        assert answer.json["Message"] == "nothing says where packages are: set USER_FUNCTION_URL_PREFIX"


def test_a_second_start_is_refused_and_the_first_goes_on(node: RunningNode) -> None:
    before = node.pid
    done = node.stoker("start", str(node.port), "-d")
    assert done.returncode != 0
    assert str(before) in done.stderr
    assert node.pid == before
    assert node.ask("GET", "/health").status == 200
    foreground = node.stoker("start", str(free_port()))
    assert foreground.returncode != 0
    assert str(node.home) in foreground.stderr


def test_a_taken_port_is_named(node: RunningNode, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more in ([], ["-d"]):
            done = node.stoker("start", port, *more, folder=folder, STOKER_HOME=str(folder / "home"))
            assert done.returncode != 0
            assert port in done.stderr
            assert not (folder / "daemon.pid").exists()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no node."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        assert process.poll() is None, "somebody killed it"


@pytest.mark.parametrize("content", ["999999999", "no pid", "", "-1", "0", "{stranger}", "{stranger}\n"])
def test_a_stale_pid_file_never_kills_a_stranger(
    node: RunningNode, folder: Path, stranger: subprocess.Popen[bytes], content: str
) -> None:
    (folder / "daemon.pid").write_text(content.format(stranger=stranger.pid))
    done = node.stoker("stop", folder=folder)
    assert done.returncode != 0
    assert "daemon.pid" in done.stderr


def test_a_missing_pid_file_is_a_clear_error(node: RunningNode, folder: Path) -> None:
    done = node.stoker("stop", folder=folder)
    assert done.returncode != 0
    assert "daemon.pid" in done.stderr


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of six megabytes."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=755", "stoker-test", folder], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_at_unpack_is_said_and_heals(sandbox: str, small_disk: Path) -> None:
    with running(sandbox, STOKER_HOME=str(small_disk / "home")) as node:
        node.package("large", {"main.py": HELLO, "noise": os.urandom(4 << 20), "zeros": bytes(6 << 20)})
        node.package("hello", {"main.py": HELLO})
        answer = node.execute("large")
        assert answer.status == 500
        assert "no space left on the disk" in answer.json["Message"]
        assert node.execute("hello").json["Result"]["statusCode"] == 200


@pytest.mark.timeout(180)  # twenty functions are built first
def test_where_descriptors_are_few_there_are_fewer_sandboxes_and_every_function_is_served() -> None:
    names = [f"f{number}" for number in range(20)]
    with running("lean") as node:
        node.stop()
        start = ["prlimit", "--nofile=256", sys.executable, "-m", "stoker", "start", str(node.port), "-d"]
        subprocess.run(start, cwd=node.folder, env=node.environment, check=True)
        for name in names:
            assert node.deploy(name, HELLO).status == 201
        assert [node.call(name).status for name in names] == [200] * len(names)
        answers = together(*(functools.partial(node.call, name) for name in names))
        assert [answer.status for answer in answers] == [200] * len(names)
