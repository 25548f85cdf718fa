from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.cli.exits import UNREACHABLE, Failure
from stoker.cli.lifetime.stopping import stop, stop_daemon

NODE = """
import os, signal, sys
from pathlib import Path
from stoker.cli.lifetime.locks import Lock
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
lock = Lock(Path(sys.argv[1]), 9000)
lock.write(f"{os.getpid()}\\n")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "daemon.pid"


@pytest.fixture
def node(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What holds its file and ends when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", NODE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def refusal(path: Path) -> str:
    with pytest.raises(Failure) as caught:
        stop_daemon(path, print)
    assert caught.value.code == UNREACHABLE
    return str(caught.value)


def test_a_node_is_ended_politely_and_its_file_removed(
    path: Path, node: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    stop_daemon(path, print)
    assert node.wait() == 0
    assert not path.exists()
    assert capsys.readouterr().out == f"stopped (process {node.pid}, port 9000)\n"


def test_the_lock_of_a_home_stays(path: Path, node: subprocess.Popen[bytes]) -> None:
    stop(path, print)
    assert node.wait() == 0
    assert path.exists()


def test_without_a_file_nothing_is_stopped(path: Path, tmp_path: Path) -> None:
    assert refusal(path) == f"no daemon.pid in {tmp_path}: no node was started there with `start -d`"


def test_a_stale_file_is_said_and_left(path: Path, node: subprocess.Popen[bytes]) -> None:
    node.send_signal(signal.SIGKILL)
    node.wait()
    assert refusal(path) == (
        f"{path} is stale: process {node.pid} is gone, or is no node; nothing was stopped. "
        "Remove the file; the next `start -d` replaces it"
    )
    assert path.exists()


def test_a_stranger_with_the_number_in_the_file_is_not_touched(path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        path.write_text(f"{stranger.pid}\n")
        assert "is stale" in refusal(path)
        assert stranger.poll() is None


@pytest.mark.parametrize("text", ["", "no number", "-1", "1"])
def test_whatever_stands_in_the_file_it_is_nobody(path: Path, text: str) -> None:
    path.write_text(text)
    assert "is stale" in refusal(path)
