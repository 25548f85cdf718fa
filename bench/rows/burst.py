"""S7: fifty functions at once, none of which has a sandbox."""

from __future__ import annotations

import os
import selectors
import socket
import time

from bench import client, machine, probes
from bench.client import BODY, Failed, request
from bench.row import Goal, Row, ratio
from bench.run import Run
from bench.system import System

FUNCTIONS = 50
REPLY = b"HTTP/1.1 200"
WAIT_S = 30.0


def measure(run: Run) -> None:
    """Bursts of calls with new sandboxes; before them, one after the other without spares, what one costs."""
    run.need_walls()
    with run.own_node("--set", "spares=0") as node:
        cpu_us = _creation_cpu_us(node, run.of(100, 25))
    with run.own_node() as node:
        for number in range(FUNCTIONS):
            node.deploy(f"burst-{number}", {"reuse": "none"})
        node.call("burst-0")
        took: list[float] = []
        for _ in range(run.of(10, 2)):
            node.wait_until_quiet()
            took += _burst_us(node)
    run.add("s7_cpu_us", cpu_us)
    run.add("s7_us", probes.percentile(took, 50))
    run.add("s7_p99_us", probes.percentile(took, 99))
    run.add("s7_bound_us", FUNCTIONS * cpu_us / len(os.sched_getaffinity(0)))


def _creation_cpu_us(node: System, count: int) -> float:
    """Processor time of one cold call, everything included, where no spare takes a part of it before."""
    node.deploy("alone", {"reuse": "none"})
    node.call("alone")
    with client.connected(node.port) as connection:
        before = machine.cpu_ns(node.pid)
        connection.latencies(request("POST", "/functions/alone/call", BODY), count)
        node.wait_until_quiet()
        return (machine.cpu_ns(node.pid) - before) / 1000 / count


def _burst_us(node: System) -> list[float]:
    """One call of each function, all at once; each one's time until the last byte. Raises `Failed`."""
    connections = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(FUNCTIONS)]
    with selectors.DefaultSelector() as waiting:
        for number, connection in enumerate(connections):
            waiting.register(connection, selectors.EVENT_READ, number)
        began = time.perf_counter_ns()
        for number, connection in enumerate(connections):
            connection.sendall(request("POST", f"/functions/burst-{number}/call", BODY))
        took: list[float] = []
        while len(took) < FUNCTIONS:
            ready = waiting.select(WAIT_S)
            if not ready:
                raise Failed(f"{FUNCTIONS - len(took)} of {FUNCTIONS} calls had no answer in {WAIT_S:g} s")
            for key, _ in ready:
                answer = connections[key.data].recv(65536)
                if not answer.startswith(REPLY):
                    raise Failed(f"in a burst: {answer.decode(errors='replace')[:1000]}")
                took.append((time.perf_counter_ns() - began) / 1000)
                waiting.unregister(key.fileobj)
    for connection in connections:
        connection.close()
    return took


ROW = Row(
    "burst of 50 functions",
    measure,
    goals=(
        Goal("S7", "50 different functions at once: p99", "≤ 1.3 × 50 × creation CPU ÷ processors",
             ("s7_p99_us", "s7_bound_us"), ratio("s7_p99_us", "s7_bound_us"), 1.3, cpu="s7_cpu_us"),
    ),
    is_repeated=False,
)  # fmt: skip
