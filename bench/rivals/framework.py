"""The package `functions-framework`: a web server around one function, as it is run in production."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import client, packages, probes

ISOLATION = "none (a web server's process)"
CODE = "def no_op(request):\n    return {}\n"


@contextmanager
def server() -> Iterator[tuple[int, float]]:
    """Its port, and microseconds from starting it to its first answer. Raises `NotMeasured`."""
    port = probes.free_port()
    command = [str(packages.python()), "-m", "functions_framework", "--target", "no_op"]
    with tempfile.TemporaryDirectory(prefix="stoker-bench-framework-") as folder:
        source = Path(folder) / "main.py"
        source.write_text(CODE)
        command += ["--source", str(source), "--host", "127.0.0.1", "--port", str(port)]
        began = time.perf_counter_ns()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            probes.wait_until_it_answers(process, port)
            with client.connected(port) as connection:
                connection.exchange(client.request("POST", "/", client.BODY))
            yield port, (time.perf_counter_ns() - began) / 1000
        finally:
            process.terminate()
            process.wait()
