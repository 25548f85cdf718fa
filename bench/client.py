"""Two clients: one connection with one request at a time, and wrk for rates."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

RATE_SCRIPT = Path(__file__).with_name("rate.lua")
CONNECTIONS = 32
BODY = b'{"text": "%s"}' % (b"x" * 88)  # 100 bytes


class Failed(Exception):
    """A measured request was not answered as it should be."""


class Rate(msgspec.Struct, frozen=True):
    """One run of wrk."""

    requests: int
    duration_us: int
    p50_us: float
    p99_us: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / (self.duration_us / 1e6)


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def content_length(head: bytes) -> int:
    """Of a request or a reply; 0 where its head does not say."""
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)


class Connection:
    """One keep-alive connection to a server of this machine."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def latencies(self, data: bytes, count: int, pause_s: float = 0.0) -> list[float]:
        """Microseconds from the first byte sent to the last byte received, one request after the other."""
        took = []
        for _ in range(count):
            if pause_s:
                time.sleep(pause_s)
            began = time.perf_counter_ns()
            self.exchange(data)
            took.append((time.perf_counter_ns() - began) / 1000)
        return took

    def round_trips_us(self, data: bytes, count: int) -> list[float]:
        """The same against a server that gives back what it gets."""
        took = []
        for _ in range(count):
            began = time.perf_counter_ns()
            self._socket.sendall(data)
            received = self._socket.recv(65536)
            while len(received) < len(data):
                received += self._more(received)
            took.append((time.perf_counter_ns() - began) / 1000)
        return took

    def exchange(self, data: bytes) -> bytes:
        """The body of the reply; raises `Failed` unless it is a 200."""
        self._socket.sendall(data)
        received = self._socket.recv(65536)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more(received)
        length = content_length(received[:end])
        while len(received) < end + 4 + length:
            received += self._more(received)
        if not received.startswith(b"HTTP/1.1 200"):
            raise Failed(received.decode(errors="replace")[:1000])
        return received[end + 4 :]

    def _more(self, received: bytes) -> bytes:
        more = self._socket.recv(65536)
        if not more:
            raise Failed(f"the connection ended after {received!r}")
        return more


@contextmanager
def connected(port: int) -> Iterator[Connection]:
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.close()


def rate(port: int, path: str, seconds: float) -> Rate:
    """What one thread of wrk gets out of a server over 32 connections."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "-s", str(RATE_SCRIPT)]
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True
    )
    line = next((line for line in said.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Failed(f"wrk said {said.stdout} {said.stderr}")
    result = msgspec.json.decode(line.removeprefix("RESULT "), type=Rate)
    if result.errors:
        raise Failed(f"{result.errors} of {result.requests} requests to {path} failed")
    return result
