"""A whole node, started by its own command in a folder of its own, and spoken to over HTTP."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import leaks
from stoker.settings import Settings

SOURCE = Path(__file__).resolve().parents[2] / "src"
PATIENCE_S = 55  # of a test's client: less than the test's own limit, so that it says what it waited for
WAIT_S, PAUSE_S = 10, 0.005
AT_WORK = ("starting", "busy", "dying", "waiting")

HELLO = """
def lambda_handler(event, context):
    return {"statusCode": 200, "body": "Hello World", "event": event}
"""
PYTHON = {"environment": "python3"}

Done = subprocess.CompletedProcess[str]
T = TypeVar("T")


class Answer:
    """One HTTP reply."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body[:500]!r}>"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def zipped(top: str, files: Mapping[str, str | bytes], config: Mapping[str, Any] | None = None) -> bytes:
    """A package as the Worker Front knows it: one top folder, `config.json` in it."""
    target = io.BytesIO()
    prefix = f"{top}/" if top else ""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
        if config is not None:
            archive.writestr(f"{prefix}config.json", json.dumps(config))
    return target.getvalue()


class RunningNode:
    """One node with a home, a folder of packages and a port of its own."""

    def __init__(self, folder: Path, sandbox: str, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.has_walls = sandbox == "lean"
        self.home = folder / "home"
        self.packages = folder / "packages"
        leaks.watch(Settings(home=self.home).node_id)
        self.home.mkdir(0o755)
        self.packages.mkdir(0o755)
        self.port = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
        self.environment = clean | {
            "PYTHONPATH": str(SOURCE),
            "STOKER_HOME": str(self.home),
            "STOKER_SANDBOX": sandbox,
            "USER_FUNCTION_URL_PREFIX": f"file://{self.packages}/",
            **environment,
        }

    # Commands

    def stoker(self, *arguments: str, folder: Path | None = None, **environment: str) -> Done:
        """One command, run to its end in the node's folder or another one."""
        return subprocess.run(
            [sys.executable, "-m", "stoker", *arguments],
            cwd=folder or self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self) -> None:
        done = self.stoker("start", str(self.port), "-d")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.log}"

    def stop(self) -> None:
        done = self.stoker("stop")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.log}"

    @property
    def log(self) -> str:
        file = self.folder / "daemon.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def pid(self) -> int:
        return int((self.folder / "daemon.pid").read_text().split()[0])

    # Requests

    def ask(
        self, method: str, target: str, body: bytes | None = None, patience_s: float = PATIENCE_S
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience_s)
        try:
            connection.request(method, target, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def execute(self, name: str, event: Any = None) -> Answer:
        """`/execute`: a GET without an event, a POST with one."""
        if event is None:
            return self.ask("GET", f"/execute?name={name}")
        return self.ask("POST", f"/execute?name={name}", json.dumps(event).encode())

    def call(self, name: str, event: Any = None) -> Answer:
        return self.ask("POST", f"/functions/{name}/call", json.dumps(event or {}).encode())

    def deploy(self, name: str, code: bytes | str, **fields: Any) -> Answer:
        content = code.encode() if isinstance(code, str) else code
        wish = {"name": name, "runtime": "python", "code": base64.b64encode(content).decode(), **fields}
        return self.ask("POST", "/functions", json.dumps(wish).encode())

    def wait_for_stats(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Until the node's numbers are as wanted; asks again and again, and gives up after a while."""
        give_up = time.monotonic() + WAIT_S
        while not holds(stats := self.ask("GET", "/stats").json["data"]):
            assert time.monotonic() < give_up, f"still {stats['pool']}, {stats['calls']}"
            threading.Event().wait(PAUSE_S)

    def wait_for_pool(self, holds: Callable[[dict[str, int]], bool]) -> None:
        """Until the pool is as wanted."""
        self.wait_for_stats(lambda stats: holds(stats["pool"]))

    def wait_until_quiet(self) -> None:
        """Until no call and no sandbox is at work."""
        self.wait_for_pool(lambda pool: not any(pool[state] for state in AT_WORK))

    # Packages

    def package(
        self, name: str, files: Mapping[str, str | bytes], config: Mapping[str, Any] | None = None
    ) -> None:
        self.raw_package(name, zipped(name, files, PYTHON if config is None else {**PYTHON, **config}))

    def raw_package(self, name: str, content: bytes) -> None:
        (self.packages / f"{name}.zip").write_bytes(content)


@contextmanager
def running(sandbox: str, **environment: str) -> Iterator[RunningNode]:
    """A started node; fails when something of it is left after it has stopped."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-journey-"))
    folder.chmod(0o755)  # a node that root starts becomes somebody else
    node = RunningNode(folder, sandbox, environment)
    try:
        node.start()
        try:
            yield node
        finally:
            node.stop()
    finally:
        leaks.remove(folder)
    assert leaks.left([str(folder), Settings(home=node.home).node_id]) == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def together(*asks: Callable[[], T]) -> list[T]:
    """All of them at the same time, each in a thread; their answers in order."""
    with ThreadPoolExecutor(len(asks)) as threads:
        return [under_way.result() for under_way in [threads.submit(ask) for ask in asks]]
