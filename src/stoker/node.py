"""Builds every room from the settings, opens them in order and closes them in reverse.

Started as root, the order is: find the runtimes, let the backends prepare (the lean one starts its
privileged helper, `ground`), then give root up for good; only then is the first byte of a stranger read.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import resource
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import uuid_utils
import uvicorn
import uvloop

from stoker import __version__, plugins
from stoker.admission import Gate, Ticket
from stoker.code import BUILD_STEPS, Cache, Functions
from stoker.deadlines import Deadlines
from stoker.doors.asgi import application
from stoker.doors.contract import Door
from stoker.doors.heads import Routes
from stoker.doors.listener import protocol_factory
from stoker.errors import (
    BackendLost,
    BadCode,
    BadRequest,
    NodeError,
    NoSuchFunction,
    Refused,
)
from stoker.ground import Ground, lay_ground, needed_paths
from stoker.invoke import Call, Rooms, Settle
from stoker.linux import privileges
from stoker.pool import Pool
from stoker.pool.recipes import Recipes
from stoker.pool.workshop import Workshop
from stoker.records import making
from stoker.records.store import Records
from stoker.runtimes.choosing import Choice, choose
from stoker.sandboxes.contract import Backend
from stoker.settings import Settings
from stoker.telemetry.metrics import Metrics
from stoker.types import MEBIBYTE, Function, Invocation, Outcome

RAM_SHARE = 0.8
"""Of the machine's memory, for all sandboxes together, unless the settings say."""
DRAIN_S = 20.0
"""How long calls inside may go on when the node stops."""
TURNED_AWAY = (BadRequest, NoSuchFunction)
"""Counted and not recorded: they came to no function, and a flood of them must not drown the records."""
DESCRIPTORS_EACH = 10
"""What a sandbox takes of the node's."""
CLIENTS = 4096
"""Descriptors kept free for them and for the node itself, but never more than half of all."""
ACCEPTS = 8
"""Connections taken in each turn: libuv takes one for each descriptor of the socket, and with only one those
of a flood, hundreds at once, keep everybody who comes new waiting for as many turns."""
GC_ALLOCATIONS = 20_000
"""Between two collections; a call leaves no cycles, so they find little."""

log = logging.getLogger(__name__)


class Node:
    """One running node; the only place where rooms meet."""

    def __init__(self, settings: Settings, ground: Ground, tasks: asyncio.TaskGroup) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._ground = ground
        self._tasks = tasks
        self.broken = ""
        """Why it can run nothing any more, and must stop; empty as long as it can."""
        self._gate = Gate(settings.max_calls, settings.max_calls_per_function)
        self.records = Records(settings.home / "records.sqlite", settings.record_keep)
        assert settings.memory_mb is not None
        backend = ground.backends[settings.sandbox]
        for other in ground.backends.values():
            other.bound_spares(0)  # what is not counted there must not be
        zygotes_mb = settings.memory_mb // 4 if settings.zygotes_mb is None else settings.zygotes_mb
        self.pool = Pool(
            settings.memory_mb,
            self._spawn,
            settings.keeping,
            settings.keep_s,
            bound_spares=backend.bound_spares,
            zygotes_mb=zygotes_mb,
            staging=settings.home / "staging",
        )
        backend.on_spares = self.pool.spares_changed
        self.pool.on_release = self._release
        for one in ground.backends.values():
            one.on_renewed, one.on_lineage_over = self.pool.lineage_aged, self.pool.lineage_over
        workshop = Workshop(backend, ground.builder, BUILD_STEPS)
        self.code = Cache(settings, workshop, self._choose, self.records)
        self.code.on_retired = self.pool.retire
        self.code.on_ready = self._expect
        self.functions = Functions(self.code, self.records)
        self._deadlines = Deadlines()
        least_mb = math.ceil(settings.memory_mb / _most_sandboxes())
        self._recipes = Recipes(ground.backends, settings.sandbox, ground.launches, least_mb)
        self._rooms = Rooms(
            clock=time.monotonic,
            code=self.code,
            pool=self.pool,
            recipes=self._recipes,
            deadlines=self._deadlines,
            spawn=self._spawn,
            record=self._record,
            max_event_bytes=self.max_event_bytes,
        )
        self.doors: list[Door] = [plugins.load("doors", name).Door(self) for name in plugins.names("doors")]

    def __repr__(self) -> str:
        return f"<Node {self.settings.node_id} {self._gate!r} {self.pool!r}>"

    @property
    def max_event_bytes(self) -> int:
        return int(self.settings.max_event_mb * MEBIBYTE)

    @property
    def is_draining(self) -> bool:
        return self._gate.is_draining

    @staticmethod
    def new_id() -> str:
        """32 hexadecimal digits that sort by time."""
        return uuid_utils.uuid7().hex

    # Calls

    def admit(self, function: str, now: float) -> Ticket:
        """The right to one call. Raises `Draining`, `TooBusy`: of these nothing is kept but the number."""
        try:
            return self._gate.admit(function, now)
        except Refused as refusal:
            self.metrics.settled(refusal)
            raise

    def call(self, invocation: Invocation, ticket: Ticket, settle: Settle, caller: Any = None) -> Call:
        """Start one call; `settle` is called once with it and its end, perhaps before this returns."""
        call = Call(self._rooms, invocation, ticket, settle, caller)
        call.start()
        return call

    async def invoke(self, invocation: Invocation) -> Outcome:
        """One call, for callers that have a task anyway. Raises `NodeError`; cancelled, the call ends."""
        settled: asyncio.Future[Outcome | NodeError] = asyncio.get_running_loop().create_future()

        def settle(call: Call, end: Outcome | NodeError) -> None:
            if not settled.done():
                settled.set_result(end)

        call = self.call(invocation, self.admit(invocation.function, time.monotonic()), settle)
        try:
            end = await settled
        finally:
            call.leave()
        if isinstance(end, NodeError):
            raise end
        return end

    def _record(self, invocation: Invocation, end: Outcome | NodeError, created_at: float) -> None:
        self.metrics.settled(end)
        if isinstance(end, Outcome):
            self.records.add(making.of_outcome(end, created_at, invocation.door))
        elif not isinstance(end, TURNED_AWAY):
            self.records.add(making.of_error(invocation, end, created_at))

    # Opening and closing

    async def open(self, stack: AsyncExitStack) -> None:
        """Open every room; what was opened is closed in reverse by `stack`."""
        stack.callback(self._deadlines.close)
        await self.records.open()
        stack.push_async_callback(self.records.close)
        for backend in self._ground.backends.values():
            await backend.open()
            for weakness in backend.weaknesses():
                log.info("the %s sandbox is weaker here: %s", backend.name, weakness)
            stack.push_async_callback(backend.close)
            stack.callback(self._spawn(self._watch(backend)).cancel)
        await self.code.open()
        stack.push_async_callback(self.code.close)
        stack.push_async_callback(self.pool.close)
        for door in self.doors:
            await door.open()
            stack.push_async_callback(door.close)
        await self._expect_deployed()

    def _release(self, lineage: int) -> None:
        for backend in self._ground.backends.values():
            backend.release_lineage(lineage)

    def _expect(self, function: Function) -> None:
        """Calls of it may come now: be ready for the first."""
        launch = self._recipes.launch_of(function)
        self._recipes.expect(launch, function.limits, function.network, function.sandbox)

    async def _expect_deployed(self) -> None:
        """The same for what was deployed in an earlier life, as far as its record tells."""
        limits = self.code.terms.limits()
        for name, network in await self.functions.languages():
            try:
                choice = self._choose(name)
            except BadCode:
                continue  # whoever calls it is told
            launch = f"{choice.runtime.name}-{choice.interpreter.version}"
            self._recipes.expect(launch, limits, network, None)

    async def _watch(self, backend: Backend) -> None:
        self.broken = await backend.wait_broken()
        log.critical("the node stops: %s", self.broken)
        self._gate.drain()

    async def drain(self) -> None:
        """Let nobody in, wait a while for those inside."""
        self._gate.drain()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._gate.drained()
        except TimeoutError:
            log.warning("%d calls were still inside after %g s", self._gate.inside, DRAIN_S)

    def _choose(self, wanted: str) -> Choice:
        return choose(self._ground.runtimes, wanted)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)


class Server(uvicorn.Server):
    """uvicorn, telling when it answers and letting calls end before connections do."""

    def __init__(self, config: uvicorn.Config, node: Node, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._node = node
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or bool(self._node.broken)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._node.drain()
        await super().shutdown(sockets)


def _most_sandboxes() -> int:
    """For how many there are descriptors."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (files - min(files // 2, CLIENTS)) // DESCRIPTORS_EACH)


def serve(settings: Settings, listening: socket.socket, ready: Callable[[], None]) -> int:
    """Run one node on a bound socket until it is told to stop; returns the exit code.

    `ready` is called when it answers. Raises `NodeError` when it cannot start.
    """
    settings = msgspec.structs.replace(settings, memory_mb=settings.memory_mb or _ram_mb())
    # Most machines give programs a thousand that may have far more.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ground = lay_ground(settings)
    if os.geteuid() == 0:
        privileges.give_up(settings.user, settings.node_uid, needed_paths(settings, ground))
    os.chdir(settings.home)
    return uvloop.run(_serve(settings, ground, listening, ready))


async def _serve(
    settings: Settings, ground: Ground, listening: socket.socket, ready: Callable[[], None]
) -> int:
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        node = Node(settings, ground, tasks)
        await node.open(stack)
        config = uvicorn.Config(
            application(node.doors, __version__),
            http=protocol_factory(  # type: ignore[arg-type]
                Routes([route for door in node.doors for route in door.routes()]), node.max_event_bytes
            ),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        gc.collect()
        # What is here now stays: no collection on the path of a call needs to look at it again.
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS)
        await Server(config, node, ready).serve([listening, *(listening.dup() for _ in range(1, ACCEPTS))])
    if node.broken:
        raise BackendLost(f"the node has stopped: {node.broken}; start it again")
    return 0


def _ram_mb() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MEBIBYTE * RAM_SHARE)
