from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoker.cli.lifetime.locks import Held, Holder, Lock, holder

HOLD = """
import sys
from pathlib import Path
from stoker.cli.lifetime.locks import Lock
lock = Lock(Path(sys.argv[1]), int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""
FORK = """
import os, sys
from pathlib import Path
from stoker.cli.lifetime.locks import Lock
lock = Lock(Path(sys.argv[1]), 1)
child = os.fork()
if child:
    print(child, flush=True)
    os._exit(0)
sys.stdin.read()
"""

Hold = Callable[[Path, int], "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts processes that hold files."""
    with_files: list[subprocess.Popen[str]] = []

    def start(path: Path, mark: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), str(mark)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        with_files.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in with_files:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("mark", [0, 1, 8222, 65535])
def test_everybody_is_told_the_holder_and_its_mark(path: Path, hold: Hold, mark: int) -> None:
    process = hold(path, mark)
    assert holder(path) == Holder(process.pid, mark)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 9000), (9000, 1)])
def test_a_held_file_cannot_be_taken_whatever_the_mark(
    path: Path, hold: Hold, first: int, second: int
) -> None:
    process = hold(path, first)
    with pytest.raises(Held) as caught:
        Lock(path, second)
    assert caught.value.holder == Holder(process.pid, first)


def test_a_holder_that_was_killed_holds_nothing(path: Path, hold: Hold) -> None:
    process = hold(path, 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder(path) is None
    Lock(path, 1).release()


def test_a_child_of_the_holder_holds_nothing(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.wait()
    assert Path(f"/proc/{child}").exists()
    assert holder(path) is None
    process.communicate()


def test_a_file_that_is_not_there_has_no_holder(path: Path) -> None:
    assert holder(path) is None


def test_what_was_written_is_replaced(path: Path) -> None:
    lock = Lock(path, 1)
    lock.write("longer than the next")
    lock.write("1\n")
    assert path.read_text() == "1\n"
    lock.remove()
    assert not path.exists()
    lock.release()


def test_a_file_that_another_put_in_its_place_is_not_removed(path: Path) -> None:
    lock = Lock(path, 1)
    path.unlink()
    path.write_text("somebody else's")
    lock.remove()
    assert path.read_text() == "somebody else's"


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        Lock(path, 1)


def test_what_is_no_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="is no regular file"):
        Lock(path, 1)
