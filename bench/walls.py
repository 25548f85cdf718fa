"""What each wall costs: the steps of real sandboxes, timed inside them; and what the helper does for one."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.client import Failed
from stoker import plugins
from stoker.linux.cgroups import Bounds, Groups, find_trees
from stoker.linux.network import Networks
from stoker.linux.users import User, UserNamespaces
from stoker.sandboxes.contract import Launch, SandboxSpec, Show
from stoker.sandboxes.lean import Backend, Settings
from stoker.types import MEBIBYTE, Limits

SERVER = Path(__file__).with_name("timed_server.py")
SERVER_INSIDE = "/app/timed/server.py"
WARM_UP = 3
FIRST_USER = 0x6FF0_0000
BOUNDS = Bounds(memory_bytes=128 * MEBIBYTE, pids=65, millicpus=1000)

Result = TypeVar("Result")

Costs = dict[str, list[float]]
"""Microseconds of each wall, one for each sandbox."""


def costs(count: int) -> Costs:
    """Make `count` sandboxes, one after the other, with every wall. Raises `Failed`."""
    launch = _launch()
    backend = Backend(Settings(node_id=f"bench{os.getpid()}", spares=0), (launch,))
    if os.geteuid() != 0:
        raise Failed("what the walls cost is measured as root")
    if problems := backend.problems():
        raise Failed("; ".join(map(str, problems)))
    return {**_of_the_helper(count), **asyncio.run(_inside(backend, launch, count))}


def _launch() -> Launch:
    """The newest Python's own, but for the server."""
    runtime = plugins.load("runtimes", "python").Runtime()
    launch: Launch = runtime.launch(runtime.interpreters()[0])
    return msgspec.structs.replace(
        launch,
        name="timed",
        argv=(*launch.argv[:-1], SERVER_INSIDE),
        shows=(*launch.shows, Show(str(SERVER), SERVER_INSIDE)),
        fork=SERVER_INSIDE,
    )


async def _inside(backend: Backend, launch: Launch, count: int) -> Costs:
    taken: Costs = {}
    await backend.open()
    try:
        for number in range(WARM_UP + count):
            spec = SandboxSpec(id=f"timed{number}", launch=launch, limits=Limits())
            for name, took in (await _times(backend, spec)).items():
                taken.setdefault(name, []).append(took / 1000)
    finally:
        await backend.close()
    return {name: values[WARM_UP:] for name, values in taken.items()}


async def _times(backend: Backend, spec: SandboxSpec) -> dict[str, int]:
    sandbox = await backend.create(spec)
    said = b""
    while part := await asyncio.get_running_loop().sock_recv(sandbox.channel, 65536):
        said += part
    await sandbox.destroy()
    times: dict[str, int] = json.loads(said)
    return times


def _of_the_helper(count: int) -> Costs:
    """The helper's own steps, by the helper's own means."""
    groups = Groups(find_trees(), f"bench{os.getpid()}")
    networks, users = Networks(), UserNamespaces()
    taken: Costs = {}

    def timed(name: str, step: Callable[[], Result]) -> Result:
        began = time.perf_counter_ns()
        result = step()
        taken.setdefault(f"helper: {name}", []).append((time.perf_counter_ns() - began) / 1000)
        return result

    groups.open()
    try:
        networks.give_back(networks.take())
        for number in range(count):
            group = groups.group(f"timed{number}")
            timed("cgroup made", group.make)
            timed("cgroup's bounds", partial(group.bound, BOUNDS))
            user = User(FIRST_USER + number, FIRST_USER + number)
            timed("user namespace, once for each place", partial(users.of, user, number))
            network = timed("network namespace, from the pool", networks.take)
            timed("network namespace, put back", partial(networks.give_back, network))
            timed("cgroup removed", group.remove)
    finally:
        networks.close()
        groups.sweep()
    return taken
