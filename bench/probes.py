"""What the system is compared with: bare forks, bare starts, a bare server, `docker run`."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.client import Failed
from stoker import plugins

HERE = Path(__file__).parent
FORKS = HERE / "forks.py"
START_S = 20.0


class Forks(msgspec.Struct, frozen=True):
    """F0, FW and U0."""

    p50_us: float
    p99_us: float
    per_second: float
    unique_kb: float


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def interpreter() -> tuple[Path, str]:
    """The newest Python this machine has and, on the host, the file that a zygote of it is made of."""
    runtime = plugins.load("runtimes", "python").Runtime()
    newest = runtime.interpreters()[0]
    launch = runtime.launch(newest)
    for show in launch.shows:
        if launch.fork is not None and launch.fork.startswith(show.target + "/"):
            return newest.binary, show.source + launch.fork.removeprefix(show.target)
    raise Failed(f"{launch.name} has no file to fork from")


def zygote_forks(binary: Path, server_file: str, count: int) -> Forks:
    """Bare forks of the real zygote's image."""
    command = [str(binary), "-I", "-S", str(FORKS), str(count), "image", server_file]
    times, rate, kb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    took = [int(word) / 1000 for word in times.split()]
    return Forks(statistics.median(took), percentile(took, 99), float(rate), float(kb))


def start_us(command: list[str], count: int) -> list[float]:
    """Microseconds from starting a program to its end."""
    took = []
    for _ in range(count):
        began = time.perf_counter_ns()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        took.append((time.perf_counter_ns() - began) / 1000)
    return took


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.005)
    raise Failed(f"{process.args!r} did not come up")


@contextmanager
def plain_server() -> Iterator[int]:
    """RU: uvicorn with uvloop and httptools and a raw ASGI echo; yields its port."""
    port = free_port()
    command = ["uvicorn", "bench.echo:app", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
    with _serving(command, port):
        yield port


@contextmanager
def relay() -> Iterator[int]:
    """X0: a bare relay to another process; yields its port."""
    port = free_port()
    with _serving(["bench.relay", str(port)], port):
        yield port


@contextmanager
def _serving(module: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", *module], cwd=HERE.parent)
    try:
        wait_until_it_answers(process, port)
        yield
    finally:
        process.terminate()
        process.wait()
