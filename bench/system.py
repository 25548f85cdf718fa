"""The system under test: a node of our own, on a free port, with a home of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.client import Failed
from bench.probes import free_port, wait_until_it_answers

STOKER = Path(sys.executable).with_name("stoker")
NO_OP = "def lambda_handler(event, context):\n    return {}\n"
STOP_S = 20.0


def default_sandbox() -> str:
    return "lean" if os.geteuid() == 0 else "process"


class System:
    """One running node."""

    def __init__(self, port: int, pid: int, home: Path) -> None:
        self.port = port
        self.pid = pid
        self.home = home

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from None

    def deploy(self, name: str, config: dict[str, object]) -> None:
        """A no-op Python function."""
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("main.py", NO_OP)
            archive.writestr("config.json", json.dumps({"environment": "python", **config}))
        code = base64.b64encode(package.getvalue()).decode()
        self.ask("POST", "/functions", {"name": name, "runtime": "python", "code": code})

    def call(self, name: str) -> Any:
        return self.ask("POST", f"/functions/{name}/call", {})


@contextmanager
def running(sandbox: str) -> Iterator[System]:
    """Starts a node and ends it; raises `Failed` when something of it is left."""
    home = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    home.chmod(0o755)
    port = free_port()
    process = start(port, home, sandbox)
    try:
        wait_until_it_answers(process, port)
        yield System(port, process.pid, home)
    finally:
        stop(process)
        shutil.rmtree(home)


def start(port: int, home: Path, sandbox: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    log = (home / "bench.log").open("wb")
    with log:
        return subprocess.Popen(
            [STOKER, "start", str(port), "--home", str(home), "--sandbox", sandbox],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=log,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"the node did not stop within {STOP_S:g} s") from None


def first_answer_ms(sandbox: str) -> float:
    """From starting the program to the first answer of the node."""
    home = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    home.chmod(0o755)
    port = free_port()
    began = time.perf_counter()
    process = start(port, home, sandbox)
    try:
        wait_until_it_answers(process, port)
        System(port, process.pid, home).ask("GET", "/health")
        return (time.perf_counter() - began) * 1000
    finally:
        stop(process)
        shutil.rmtree(home)
