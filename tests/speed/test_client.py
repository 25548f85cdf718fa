"""The benchmark's own client and probes measure what they say they measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import client, machine, probes


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    with probes.plain_server() as port:
        yield port


def test_the_body_of_a_request_is_a_hundred_bytes_of_json() -> None:
    assert len(client.BODY) == 100
    assert json.loads(client.BODY)


def test_a_reply_is_read_to_its_last_byte(echo: int) -> None:
    connection = client.Connection(echo)
    large = b'"' + b"x" * 3_000_000 + b'"'
    assert connection.exchange(client.request("POST", "/", large)) == large
    assert connection.exchange(client.request("POST", "/", client.BODY)) == client.BODY
    connection.close()


def test_a_relay_gives_back_what_it_gets_from_another_process() -> None:
    with probes.relay() as port:
        connection = client.Connection(port)
        assert len(connection.round_trips_us(b"x" * 300, 20)) == 20
        connection.close()


def test_each_request_is_timed(echo: int) -> None:
    connection = client.Connection(echo)
    took = connection.latencies(client.request("POST", "/", client.BODY), 20)
    connection.close()
    assert len(took) == 20 and all(one > 0 for one in took)


def test_a_failing_reply_fails_the_benchmark() -> None:
    with probes.plain_server() as port:
        connection = client.Connection(port)
        with pytest.raises(client.Failed, match="400"):
            connection.exchange(b"nonsense\r\n\r\n")
        connection.close()


def test_the_forks_are_those_of_a_zygotes_image() -> None:
    binary, server_file = probes.interpreter()
    forks = probes.zygote_forks(binary, server_file, 20)
    assert 0 < forks.p50_us <= forks.p99_us
    assert forks.per_second > 0


def test_cpu_time_counts_a_process_and_its_children() -> None:
    code = "import os, sys\nif os.fork() == 0:\n    sum(range(10**6))\nprint(flush=True)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.read(1) + process.stdout.read(1) == b"\n\n"
    parent_alone = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    assert machine.cpu_ns(process.pid) > parent_alone
    process.communicate()
    assert machine.cpu_ns(process.pid) == 0


def test_what_disturbed_a_run_is_told() -> None:
    noise = machine.Listening().stop()
    assert noise.load >= 0 and noise.steal_percent >= 0
    assert machine.describe().cpus == len(os.sched_getaffinity(0))


def test_cpu_time_counts_what_has_ended_too() -> None:
    before = machine.cpu_ns(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert machine.cpu_ns(os.getpid()) - before > 190_000_000
