"""Nodes started by the command line, as a person starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Shell:
    """A folder to type `stoker …` in."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
        self.environment = kept | {
            "PYTHONPATH": str(SOURCE),
            "STOKER_HOME": str(home),
            "STOKER_PORT": "0",
            "STOKER_SANDBOX": "process",
        }

    def run(self, *arguments: str, event: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "stoker", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=event,
            capture_output=True,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def does(self, *arguments: str, event: bytes | None = None) -> str:
        """What a command that succeeds prints."""
        done = self.run(*arguments, event=event)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, code: int, *arguments: str) -> str:
        """What a command that ends with `code` says; never a traceback."""
        done = self.run(*arguments)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """One command that goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "stoker", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pid(self) -> int:
        """The daemon's, as its file says."""
        return int((self.folder / "daemon.pid").read_text())


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not merely one that nobody has collected yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def shell(folder: Path, home: Path, nothing_left: None) -> Iterator[Shell]:
    """A folder and a home of their own; a daemon that is left running is ended, and nothing of it stays."""
    shell = Shell(folder, home)
    yield shell
    if (folder / "daemon.pid").exists():
        shell.run("stop")


@pytest.fixture
def node(shell: Shell) -> Shell:
    """With a daemon that answers."""
    shell.does("start", "-d")
    return shell
