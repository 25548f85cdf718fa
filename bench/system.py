"""The system under test: a node of our own, on a free port, with a home of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import leaks
from bench.client import Failed
from bench.image import NO_OP
from bench.probes import START_S, free_port, wait_until_it_answers
from stoker.settings import Settings

STOKER = Path(sys.executable).with_name("stoker")
NO_OPS: Mapping[str, str] = MappingProxyType({"main.py": NO_OP})
STOP_S = 20.0
KILLS = 3  # of one node's helpers: five within ten seconds are a fault, and end the node
LOG, HOME = "log", "home"
AT_WORK = ("starting", "busy", "dying", "waiting")
POLL_S, SPARES_S = 0.01, 0.2


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

    def deploy(
        self, name: str, config: dict[str, object], files: Mapping[str, str] = NO_OPS, runtime: str = "python"
    ) -> None:
        """A function of these files; without any, a no-op in Python."""
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
            archive.writestr("config.json", json.dumps({"environment": runtime, **config}))
        code = base64.b64encode(package.getvalue()).decode()
        self.ask("POST", "/functions", {"name": name, "runtime": runtime, "code": code})

    def call(self, name: str, event: object = None) -> Any:
        return self.ask("POST", f"/functions/{name}/call", {} if event is None else event)

    def wait_until_quiet(self) -> None:
        """Until nothing is at work, spares included, which nobody tells of."""
        give_up = time.monotonic() + START_S
        while any(self.ask("GET", "/stats")["data"]["pool"][state] for state in AT_WORK):
            if time.monotonic() > give_up:
                raise Failed(f"still at work after {START_S:g} s")
            time.sleep(POLL_S)
        time.sleep(SPARES_S)


@contextmanager
def home() -> Iterator[Path]:
    """A folder for a node's home and log; raises `Failed` when something of the node is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    folder.chmod(0o755)  # a node that root starts becomes somebody else
    marks = [str(folder / HOME), Settings(home=folder / HOME).node_id]
    leaks.watch(*marks)
    try:
        yield folder
    finally:
        leaks.remove(folder)
    if things := leaks.left(marks):
        raise Failed("left behind: " + "; ".join(things))


@contextmanager
def running(sandbox: str, *arguments: str) -> Iterator[System]:
    """Starts a node, with further arguments, and ends it; raises `Failed` when something of it is left."""
    port = free_port()
    with home() as folder:
        process = start(port, folder, sandbox, *arguments)
        try:
            wait_for(process, port, folder)
            yield System(port, process.pid, folder / HOME)
        finally:
            stop(process)


def start(port: int, folder: Path, sandbox: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    log = (folder / LOG).open("wb")
    with log:
        return subprocess.Popen(
            [STOKER, "start", str(port), "--home", str(folder / HOME), "--sandbox", sandbox, *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def wait_for(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    try:
        wait_until_it_answers(process, port)
    except Failed as error:
        said = (folder / LOG).read_text(errors="replace").strip()
        raise Failed(f"{error}; it said: {said[-2000:] or 'nothing'}") from None


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
    port = free_port()
    with home() as folder:
        began = time.perf_counter()
        process = start(port, folder, sandbox)
        try:
            wait_for(process, port, folder)
            System(port, process.pid, folder / HOME).ask("GET", "/health")
            return (time.perf_counter() - began) * 1000
        finally:
            stop(process)


def back_ms(sandbox: str) -> tuple[list[float], list[float]]:
    """From a kill -9 of the helper (only `lean` has one), or of the node, to a cold function's next answer.

    A few kills of each, in one home; after that of the node it is started again at once.
    """
    port = free_port()
    helpers, nodes = [], []
    with home() as folder:
        process = start(port, folder, sandbox)
        try:
            wait_for(process, port, folder)
            node = System(port, process.pid, folder / HOME)
            node.deploy("cold", {"reuse": "none"})
            node.call("cold")
            for _ in range(KILLS if sandbox == "lean" else 0):
                began = time.perf_counter()
                _end(helper_of(node))
                helpers.append(_until_it_answers(node, began))
            for _ in range(KILLS):
                began = time.perf_counter()
                process.kill()
                process.wait()
                process = start(port, folder, sandbox)
                wait_for(process, port, folder)
                nodes.append(_until_it_answers(node, began))
        finally:
            stop(process)
    return helpers, nodes


def helper_of(node: System) -> int:
    """The process of its helper."""
    return _named("stoker-helper", _named("stoker-guardian", node.pid))


def descendants(pid: int) -> list[int]:
    """Every process below one, itself not."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has ended meanwhile
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found[1:]


def _named(name: str, parent: int) -> int:
    """The child of that name."""
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return pid
    raise Failed(f"process {parent} has no {name}")


def _end(pid: int) -> None:
    """Kill it, and return when it is dead."""
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [])
    os.close(process)


def _until_it_answers(node: System, began: float) -> float:
    while (took := (time.perf_counter() - began) * 1000) < START_S * 1000:
        try:
            node.call("cold")
        except (Failed, OSError):
            time.sleep(0.001)
        else:
            return (time.perf_counter() - began) * 1000
    raise Failed(f"no answer {took:.0f} ms after a kill")
