"""A whole node under more than it can do: who is turned away is told so at once, and others are not starved.

What is compared was measured in the same run on the same node; what a machine shared with others cannot
spoil is measured as processor time.
"""

from __future__ import annotations

import asyncio
import collections
import os
import re
import statistics
import time
from collections.abc import Iterator

import pytest
from bench import machine
from bench.client import request
from bench.openloop import Client, Sent
from bench.rows.overload import COMPUTES

from journeys.running import RunningNode, running

NOTHING = "def lambda_handler(event, context):\n    return {}\n"
LINE = 30
TIMES = 3
"""So many times what the node can do."""
FLOOD_S = 3.0
OTHERS_AT_MOST = 40
"""Times as long as alone. Behind the whole line of the flood, or beside as many sandboxes as it asks for, a
call would take as much longer as the flood has calls inside, and without a turn for ever."""


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    sandbox = "lean" if os.geteuid() == 0 else "process"
    with running(sandbox, STOKER_MAX_CALLS_PER_FUNCTION=str(LINE)) as one:
        for name, code in (("flood", COMPUTES), ("other", COMPUTES), ("nothing", NOTHING)):
            assert one.deploy(name, code).status == 201
            assert one.call(name).status == 200
        yield one


class Retrier(asyncio.Protocol):
    """A connection that asks again as soon as it is answered, whatever the answer."""

    def __init__(self, data: bytes, counts: collections.Counter[int]) -> None:
        self._data = data
        self._counts = counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self._counts[int(data[9:12])] += 1
        self._transport.write(self._data)


async def retried(
    node: RunningNode, connections: int, seconds: float
) -> tuple[collections.Counter[int], float, list[Sent]]:
    """What became of calls that do nothing, the processor time of all, and another function's calls."""
    counts: collections.Counter[int] = collections.Counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Retrier(to("nothing"), counts), "127.0.0.1", node.port)
        for _ in range(connections)
    ]
    counts.clear()
    before = machine.cpu_ns(node.pid)
    async with Client(node.port) as other:
        others = await other.serial(to("other"), time.monotonic() + seconds)
    spent = machine.cpu_ns(node.pid) - before
    for transport, _ in made:
        transport.abort()
    return counts, spent, others


def to(name: str) -> bytes:
    return request("POST", f"/functions/{name}/call", b"{}")


async def best(node: RunningNode, seconds: float) -> tuple[float, float]:
    """With as many at a time as keep it busy: calls a second, and processor time of each."""
    async with Client(node.port) as client:
        began, before = time.monotonic(), machine.cpu_ns(node.pid)
        done = await asyncio.gather(*(client.serial(to("flood"), began + seconds) for _ in range(8)))
        spent = machine.cpu_ns(node.pid) - before
    calls = sum(map(len, done))
    return calls / (time.monotonic() - began), spent / calls


async def flood(node: RunningNode, rate: float) -> tuple[list[Sent], list[Sent], float]:
    """Those of the flood, those of the other function meanwhile, and the processor time that all took."""
    requests = [(number / rate, to("flood")) for number in range(int(rate * FLOOD_S))]
    before = machine.cpu_ns(node.pid)
    async with Client(node.port) as client, Client(node.port) as other:
        sent = asyncio.ensure_future(client.send(requests))
        others = await other.serial(to("other"), time.monotonic() + FLOOD_S)
        flooded = await sent
    return flooded, others, machine.cpu_ns(node.pid) - before


async def test_a_flood_of_one_function_neither_starves_others_nor_costs_the_node_its_goodput(
    node: RunningNode,
) -> None:
    async with Client(node.port) as client:
        alone = await client.serial(to("other"), time.monotonic() + 1.0)
    rate, cpu_of_one = await best(node, 2.0)
    flooded, others, spent = await flood(node, rate * TIMES)

    assert {one.status for one in others} == {200}
    times = statistics.median(one.took_s for one in others) / statistics.median(one.took_s for one in alone)
    assert times <= OTHERS_AT_MOST

    assert {one.status for one in flooded} == {200, 429}
    good = sum(one.status == 200 for one in flooded) + len(others)
    assert cpu_of_one / (spent / good) >= 0.8, "processor time goes into calls, not into turning others away"


async def test_who_is_turned_away_hears_so_before_those_inside_are_answered_and_when_to_come_back(
    node: RunningNode,
) -> None:
    rate, _ = await best(node, 1.0)
    flooded, _, _ = await flood(node, rate * TIMES)
    refused = [one for one in flooded if one.status == 429]
    served = [one for one in flooded if one.status == 200]
    assert statistics.median(one.took_s for one in refused) < statistics.median(one.took_s for one in served)
    told = [int(found[1]) for one in refused if (found := re.search(rb"retry-after: (\d+)", one.head))]
    assert len(told) == len(refused)
    assert 1 <= statistics.median(told) <= 2 + 4 * LINE / rate, "about as long as those inside take"


async def test_a_flood_of_calls_that_do_nothing_and_ask_again_at_once_leaves_the_node_its_goodput(
    node: RunningNode,
) -> None:
    async with Client(node.port) as client:
        alone = await client.serial(to("other"), time.monotonic() + 1.0)
    calm, calm_spent, _ = await retried(node, LINE // 2, FLOOD_S)
    flooded, spent, others = await retried(node, LINE * 20, FLOOD_S)
    assert set(flooded) == {200, 429}
    assert {one.status for one in others} == {200}
    times = statistics.median(one.took_s for one in others) / statistics.median(one.took_s for one in alone)
    assert times <= OTHERS_AT_MOST
    assert (flooded[200] / spent) / (calm[200] / calm_spent) >= 0.5, "of the calls for as much processor time"
