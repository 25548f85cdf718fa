"""The package `awslambdaric`: AWS's runtime for Python, asking a Runtime API of the bench's own for events.

That API is as small as it can be: it hands out one event after the other and takes the answers, in the
process that measures, on whatever connections the runtime opens.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench import client, image, packages
from bench.client import Failed

ISOLATION = "none (a process); AWS runs it in a microVM"
PATIENCE_S = 20.0
NEXT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: %d\r\n"
    b"Lambda-Runtime-Deadline-Ms: %d\r\n"
    b"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:x:0:function:no-op\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


class Api:
    """Listens on a free port; one request after the other."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._received: dict[socket.socket, bytes] = {}
        self.address = "{}:{}".format(*self._listener.getsockname())

    def close(self) -> None:
        for open_socket in (self._listener, *self._received):
            open_socket.close()

    def serve(self, count: int) -> list[float]:
        """Microseconds from handing out each event to the last byte of its answer."""
        took: list[float] = []
        began = 0
        while len(took) < count:
            connection, head = self._request()
            if head.startswith(b"GET ") and b"/invocation/next" in head:
                began = time.perf_counter_ns()
                deadline_ms = int((time.time() + PATIENCE_S) * 1000)
                connection.sendall(NEXT % (len(took) + 1, deadline_ms, len(client.BODY), client.BODY))
            elif b"/response " in head.partition(b"\r\n")[0]:
                took.append((time.perf_counter_ns() - began) / 1000)
                connection.sendall(ACCEPTED)
            else:
                raise Failed(f"awslambdaric: {head.decode(errors='replace')[:500]}")
        return took

    def _request(self) -> tuple[socket.socket, bytes]:
        """The next whole request of any connection: where to answer, and its head."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            ready, _, _ = select.select([self._listener, *self._received], [], [], PATIENCE_S)
            for one in ready:
                if one is self._listener:
                    connection, _ = one.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._received[connection] = b""
                elif part := one.recv(65536):
                    self._received[one] += part
                    if (head := self._whole(one)) is not None:
                        return one, head
                else:
                    del self._received[one]
                    one.close()
        raise Failed(f"awslambdaric asked nothing for {PATIENCE_S:g} s")

    def _whole(self, connection: socket.socket) -> bytes | None:
        """The head of the request when all of it is here; it is forgotten then."""
        head, end, body = self._received[connection].partition(b"\r\n\r\n")
        if not end or len(body) < client.content_length(head):
            return None
        self._received[connection] = b""
        return head


def times_us(count: int) -> tuple[float, list[float]]:
    """From starting the runtime to its first answer, and of the calls after it. Raises `NotMeasured`."""
    api = Api()
    with tempfile.TemporaryDirectory(prefix="stoker-bench-lambda-") as folder:
        (Path(folder) / "main.py").write_text(image.NO_OP)
        environment = {"PATH": os.defpath, "AWS_LAMBDA_RUNTIME_API": api.address, "LAMBDA_TASK_ROOT": folder}
        command = [str(packages.python()), "-m", "awslambdaric", "main.lambda_handler"]
        began = time.perf_counter_ns()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        try:
            api.serve(1)
            cold_us = (time.perf_counter_ns() - began) / 1000
            return cold_us, api.serve(count)
        finally:
            process.kill()
            process.wait()
            api.close()
