"""What `scripts/demo` shows: two functions, each called cold and warm, and where the time went."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path

from rich.console import Console
from rich.table import Table

import leaks
from stoker.settings import Settings

EXAMPLES = Path(__file__).resolve().parent
STOKER = Path(sys.executable).with_name("stoker")
PHASES = ("admit", "code", "sandbox", "init", "run")


class Demo:
    """One node of our own."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
        sandbox = "lean" if os.geteuid() == 0 else "process"
        self.environment = clean | {
            "STOKER_HOME": str(home),
            "STOKER_PORT": str(port),
            "STOKER_SANDBOX": sandbox,
        }

    def stoker(self, *arguments: str) -> None:
        print("$ stoker", *arguments, flush=True)
        subprocess.run([STOKER, *arguments], cwd=self.home, env=self.environment, check=True)

    def call(self, name: str) -> tuple[float, dict[str, float], object]:
        """Milliseconds at the client, the phases as the reply tells them, and the answer."""
        began = time.perf_counter()
        self.connection.request("POST", f"/functions/{name}/call", json.dumps({"name": "Stoker"}))
        reply = self.connection.getresponse()
        body = reply.read()
        took = (time.perf_counter() - began) * 1000
        if reply.status != HTTPStatus.OK:
            raise RuntimeError(f"{name}: {reply.status} {body.decode()}")
        return took, phases(reply.headers["Server-Timing"]), json.loads(body)


def phases(header: str) -> dict[str, float]:
    parts = (part.strip().partition(";dur=") for part in header.split(","))
    return {name: float(value) for name, _, value in parts}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def functions() -> list[str]:
    names = ["hello-python", "hello-node"]
    if shutil.which("node") is None:
        print("no Node.js here (on Debian or Ubuntu: apt install nodejs): only the Python example is shown")
        names.pop()
    return names


def show(demo: Demo, names: list[str]) -> Table:
    table = Table("function", "call", *(f"{phase} ms" for phase in PHASES), "client ms", "answer")
    for name in names:
        for temperature in ("cold", "warm", "warm", "warm"):
            took, parts, answer = demo.call(name)
            times = [f"{parts.get(phase, 0):.2f}" for phase in PHASES]
            table.add_row(name, temperature, *times, f"{took:.2f}", json.dumps(answer))
    return table


def main() -> int:
    home = Path(tempfile.mkdtemp(prefix="stoker-demo-"))
    home.chmod(0o755)  # a node that root starts becomes somebody else
    demo = Demo(home, free_port())
    names = functions()
    try:
        demo.stoker("start", str(demo.port), "-d")
        try:
            for name in names:
                demo.stoker("deploy", str(EXAMPLES / name))
            Console(width=max(150, Console().width)).print(show(demo, names))
        finally:
            demo.connection.close()
            demo.stoker("stop")
    except (subprocess.CalledProcessError, RuntimeError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        for log in home.glob("*.log"):
            print(log.read_text(), file=sys.stderr)
        return 1
    finally:
        leaks.remove(home)
    left = leaks.left([str(home), Settings(home=home).node_id])
    print(*left or ["nothing is left: no process, mount, cgroup or file"], sep="\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
