"""The node's side of the lean sandbox: it asks, the helper makes.

HOLDS: nothing here needs a privilege once `prepare` has returned. What is made on the host is the
helper's, and goes when the helper does; what the node holds is descriptors.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import marshal
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, ClassVar

from stoker.errors import BackendLost, BackendUnavailable, SandboxFailed, SandboxLost, Unsupported
from stoker.linux.cgroups import Groups, find_trees
from stoker.linux.gauges import Gauges
from stoker.linux.rootless import is_root
from stoker.sandboxes import contract
from stoker.sandboxes.contract import Abilities, Launch, Problem, SandboxSpec
from stoker.sandboxes.lean.link import Link
from stoker.sandboxes.lean.order import Order, bounded, folders, is_short
from stoker.sandboxes.lean.packets import (
    AGAIN,
    DESTROY,
    EGRESS,
    ENDED,
    FAILED,
    HAS_CODE,
    HAS_WORKSPACE,
    HOST_NETWORK,
    KILLED,
    KILLED_BODY,
    LOST,
    MADE,
    MADE_BODY,
    MAKE,
    READY,
    RELEASE,
    RENEW,
    RENEWED,
    RENEWED_BODY,
    SPARE,
    SPARES,
    SPARES_BODY,
    UNRENEWED,
    WANT,
    WANT_BODY,
    Make,
    pack,
)
from stoker.sandboxes.lean.problems import find_egress_problem, find_problems, kernel, missing_group
from stoker.sandboxes.lean.renewal import Renewal
from stoker.sandboxes.lean.sandbox import Sandbox, Traces, ending_of
from stoker.sandboxes.lean.settings import Settings
from stoker.sandboxes.lean.spares import Spares
from stoker.sandboxes.lean.starting import START, words
from stoker.sandboxes.lean.weaknesses import find_weaknesses
from stoker.types import Ending, Network

NAME = re.compile(r"[a-z0-9_-][a-z0-9_.-]{0,63}")
REVIEW_S = 1.0  # between two looks at how many spares there should be where nobody asks for any, and at ages
TRIES = 2  # of one sandbox: should it be what the helper dies of, it must not go on for ever

log = logging.getLogger(__name__)


class Backend(contract.Backend):
    """Lean sandboxes."""

    name: ClassVar[str] = "lean"

    def __init__(self, settings: Settings, launches: tuple[Launch, ...]) -> None:
        self._settings = settings
        self._is_root = is_root()  # now: the node gives it up once the helper runs
        self._launches = launches
        self._index = {launch.name: index for index, launch in enumerate(launches)}
        self._groups = Groups(find_trees(settings.cgroup_parent), settings.node_id)
        self._process: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None
        self._link: Link | None = None
        self._ready: asyncio.Future[None] | None = None
        self._broken: asyncio.Future[str] | None = None
        self._farewell = "the sandbox helper or its guardian was ended from outside"
        self._numbers = itertools.count(1)
        self._orders: dict[int, Order] = {}
        self._sandboxes: dict[int, Sandbox] = {}
        self._ids: set[str] = set()
        makers = len(os.sched_getaffinity(0))
        self._spares = Spares(launches, settings.spares, makers, self._want)
        self._spares.on_change = self._spares_changed
        self._renewal = Renewal(settings.renew_s)
        self._former: dict[int, int] = {}
        """By launch, the lineage before its newest, until it is released."""
        self._review: asyncio.TimerHandle | None = None
        self._egress_problem: Problem | None = None
        self.abilities = self._find_abilities()

    def __repr__(self) -> str:
        state = "open" if self._link and self._link.is_open else "closed"
        return f"<lean backend, {state}, {len(self._sandboxes)} sandboxes, {len(self._orders)} starting>"

    def _find_abilities(self) -> Abilities:
        found = self._groups.controllers
        # Processes are bounded without a cgroup as well: each sandbox has a user id of its own, or where it
        # has none a user namespace, which before Linux 5.14 did not count.
        return Abilities(
            walls=True,
            limits_memory=True,  # by a cgroup, or else by watching
            limits_pids=self._is_root or kernel() >= (5, 14) or "pids" in found,
            measures=True,
            freezes=True,
            tells_memory="memory" in found,
        )

    def problems(self) -> list[Problem]:
        if self._process is not None:
            return []
        parent = self._settings.cgroup_parent
        return find_problems() + ([missing_group(parent)] if parent and not self._groups.trees else [])

    def weaknesses(self) -> list[Problem]:
        return find_weaknesses(self._is_root, self._groups.controllers, self.abilities.limits_pids)

    def lacks(self, network: Network) -> Problem | None:
        if network is not Network.EGRESS:
            return None
        return self._egress_problem if self._process is not None else find_egress_problem()

    def prepare(self) -> None:
        """Start the helper. Returns at once; `open` waits for it."""
        problems = self.problems()
        if problems:
            raise BackendUnavailable("; ".join(map(str, problems)))
        self._egress_problem = find_egress_problem()
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        source = __file__.rsplit("/stoker/", 1)[0]
        # Its own session: a Ctrl-C in the node's terminal is for the node to act on.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", START, f"stoker-helper-{self._settings.node_id}", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # marshal, because both ends are this interpreter and it costs no import.
        self._process.stdin.write(marshal.dumps(self._words(theirs.fileno(), source)))
        self._process.stdin.close()
        theirs.close()

    def _words(self, link: int, source: str) -> dict[str, Any]:
        """What the helper is told of the node."""
        trees = [(str(tree.root), tuple(tree.controllers), tree.version) for tree in self._groups.trees]
        return {
            "link": link,
            "node": os.getpid(),
            "is_root": self._is_root,
            "bounds_processes": self.abilities.limits_pids,
            "trees": trees,
            **words(self._settings, self._launches, self._is_root, source),
        }

    async def open(self) -> None:
        if self._end is None:
            self.prepare()
        assert self._end is not None
        loop = asyncio.get_running_loop()
        self._ready, self._broken = loop.create_future(), loop.create_future()
        self._link = Link(self._end, self)
        await self._ready
        self._look()

    async def wait_broken(self) -> str:
        assert self._broken is not None
        return await asyncio.shield(self._broken)

    async def close(self) -> None:
        process, self._process = self._process, None
        if self._review is not None:
            self._review.cancel()
        if self._link is not None:
            self._link.close()
        elif self._end is not None:
            self._end.close()
        if process is not None:
            await _wait_ended(process)
        self._forget_all()
        for sandbox in tuple(self._sandboxes.values()):
            await sandbox.destroy()
        self._sandboxes.clear()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        if self._link is None or not self._link.is_open:
            raise BackendLost(f"no sandbox can be made any more: {self._farewell}; restart the node")
        make, body = self._make(spec)
        order = Order(spec, body)
        self._send(order)
        # After it was sent: what is asked for is made first.
        order.kind = self._spares.asked(make, time.monotonic())
        self._ids.add(spec.id)
        try:
            return await order.sandbox  # no shield, which takes two more turns of the event loop
        except asyncio.CancelledError:
            await self._withdraw(order)
            raise

    def _send(self, order: Order) -> None:
        assert self._link is not None
        order.number = next(self._numbers)
        order.tries += 1
        with folders(order.spec) as descriptors:
            self._link.send(pack(MAKE, order.number, order.body), descriptors)
        self._orders[order.number] = order

    def _make(self, spec: SandboxSpec) -> tuple[Make, bytes]:
        """The order, and how it is written."""
        launch = self._index.get(spec.launch.name)
        if launch is None:
            known = ", ".join(self._index) or "none"
            raise SandboxFailed(
                f"no launch {spec.launch.name!r} was given when the node started; there is {known}"
            )
        if not NAME.fullmatch(spec.id):
            raise SandboxFailed(f"{spec.id!r} is no name for a sandbox: at most 64 of [a-z0-9_.-]")
        if spec.id in self._ids:
            raise SandboxFailed(f"there is a sandbox {spec.id!r} already")
        flags = HAS_CODE if spec.code else 0
        flags |= HAS_WORKSPACE if spec.workspace else 0
        flags |= {Network.HOST: HOST_NETWORK, Network.EGRESS: EGRESS}.get(spec.network, 0)
        lack = self.lacks(spec.network)
        if lack is not None:
            raise Unsupported(f"no sandbox with the network {spec.network.value!r} here: {lack}")
        try:
            make = bounded(launch, flags, spec.id, spec.limits)
            make = make._replace(
                opening=spec.opening if is_short(spec.opening) else b"",
                egress=tuple(text.encode() for text in spec.egress),
                lineage=spec.lineage,
            )
            return make, make.pack()
        except struct.error:
            raise SandboxFailed(f"bounds that no sandbox can have: {spec.limits}") from None

    async def _withdraw(self, order: Order) -> None:
        """See a start through to its end although nobody wants it any more, however often that is said."""
        order.is_unwanted = True
        order.reopen()
        self._destroy(order.number)
        while not order.sandbox.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([order.sandbox])
        while order.sandbox.exception() is None:
            with suppress(asyncio.CancelledError):
                await order.sandbox.result().destroy()
                return

    def _destroy(self, number: int) -> None:
        self._say(pack(DESTROY, number))

    def _say(self, packet: bytes) -> None:
        if self._link is not None:
            self._link.send(packet)

    # Spares

    def bound_spares(self, memory_mb: int) -> None:
        # The helper has as many descriptors as we: a sixteenth of that in MB is a fifth of them for spares.
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._spares.bound(min(memory_mb, files // 16), time.monotonic())

    def expect(self, spec: SandboxSpec) -> None:
        self._spares.expect(self._make(spec)[0], time.monotonic())

    def _want(self, kind: int, number: int, pattern: Make) -> int:
        word = next(self._numbers)
        self._say(pack(WANT, kind, WANT_BODY.pack(number, word) + pattern.pack()))
        return word

    def _spares_changed(self, number: int, memory_mb: int) -> None:
        self.on_spares(number, memory_mb)

    def _look(self) -> None:
        """Also where nobody asks any more there come to be fewer spares, and interpreters are renewed."""
        now = time.monotonic()
        self._spares.review(now)
        for lineage in self._renewal.due(now, is_busy=bool(self._orders)):
            self._say(pack(RENEW, lineage))
        self._review = asyncio.get_running_loop().call_later(REVIEW_S, self._look)

    # Lineages

    def release_lineage(self, lineage: int) -> None:
        self._former = {launch: former for launch, former in self._former.items() if former != lineage}
        self._say(pack(RELEASE, lineage))

    def _renewed(self, launch: int, former: int, lineage: int) -> None:
        log.info("sandboxes of %s are forked from a fresh interpreter", self._launches[launch].name)
        self._renewal.renewed(launch, lineage)
        if launch in self._former:
            self.on_lineage_over(self._former.pop(launch))
        self._former[launch] = former
        self.on_renewed(former)

    def _unrenewed(self, launch: int, text: str) -> None:
        pause_s = self._renewal.failed(launch, time.monotonic())
        name = self._launches[launch].name
        log.warning("the interpreter of %s cannot be renewed: %s; tried again in %g s", name, text, pause_s)

    # What the helper says

    def heard(self, kind: int, number: int, body: bytes, descriptors: list[int]) -> None:
        if kind == MADE:
            self._made(number, body, descriptors)
        elif kind == KILLED:
            self._sandboxes[number].traces.oom_kills = KILLED_BODY.unpack(body)[0]
        elif kind == ENDED:
            sandbox = self._sandboxes.pop(number)
            self._ids.discard(sandbox.id)
            sandbox.ended.set_result(ending_of(body))
        elif kind == FAILED and number:
            order = self._orders.pop(number)
            self._ids.discard(order.spec.id)
            order.fail(SandboxFailed(body.decode(errors="replace")))
        elif kind == AGAIN:
            self._ask_again(self._orders.pop(number), SandboxFailed(body.decode(errors="replace")))
        elif kind == SPARES:
            held, took_us, word = SPARES_BODY.unpack(body)
            self._spares.heard(number, held, took_us / 1e6, word)
        elif kind == RENEWED:
            self._renewed(number, *RENEWED_BODY.unpack(body))
        elif kind == UNRENEWED:
            self._unrenewed(number, body.decode(errors="replace"))
        elif kind == LOST:
            self._lost_helper(number, body.decode(errors="replace"))
        else:
            self._heard_of_helper(kind, body.decode(errors="replace"))

    def _made(self, number: int, body: bytes, descriptors: list[int]) -> None:
        """The name of its cgroup is not its own when it was a spare."""
        assert self._link is not None
        order = self._orders.pop(number)
        pid, left, took_us, which, lineage = MADE_BODY.unpack_from(body)
        group = body[MADE_BODY.size :].decode()
        if order.kind is not None and body.startswith(SPARE, MADE_BODY.size):
            self._spares.given(order.kind, left, took_us / 1e6)
        ends = len(descriptors) - which.bit_count()
        gauges = Gauges.of(self._groups.counters, which, descriptors[ends:])
        traces = Traces(pid, self._groups.group(group), gauges, self._link.read)
        sandbox = Sandbox(order.spec.id, descriptors[:ends], traces, lambda: self._destroy(number))
        sandbox.is_opened = is_short(order.spec.opening)
        if order.spec.launch.fork is not None:
            sandbox.lineage = lineage
            self._renewal.made(self._index[order.spec.launch.name], lineage, time.monotonic())
        self._sandboxes[number] = sandbox
        order.made(sandbox)

    def _heard_of_helper(self, kind: int, text: str) -> None:
        assert self._ready is not None
        if kind == READY:
            self._groups.keep(frozenset(text.split()))
            self.abilities = self._find_abilities()
            if not self._ready.done():
                self._ready.set_result(None)
        else:
            self._farewell = text

    def _lost_helper(self, first: int, how: str) -> None:
        """Every sandbox has ended with its helper. What was being made is asked of the next one."""
        log.warning(
            "the sandbox helper ended %s, and %d sandboxes with it; a new one starts",
            how,
            len(self._sandboxes),
        )
        self._numbers = itertools.count(first)
        self._spares.lost()
        self._end_sandboxes()
        lost = [*self._renewal.lost(), *self._former.values()]
        self._former.clear()
        for lineage in lost:
            self.on_lineage_over(lineage)
        orders, self._orders = self._orders, {}
        self._ids = {order.spec.id for order in orders.values()}
        for order in orders.values():
            text = f"the sandbox helper ended {order.tries} times while it made this one"
            self._ask_again(order, SandboxLost(text))

    def _ask_again(self, order: Order, otherwise: SandboxFailed) -> None:
        try:
            if order.is_unwanted or order.tries == TRIES:
                raise otherwise
            self._send(order)
        except SandboxFailed as error:
            self._ids.discard(order.spec.id)
            order.fail(error)

    def lost(self) -> None:
        assert self._ready is not None and self._broken is not None
        if not self._ready.done():
            self._ready.set_exception(BackendUnavailable(self._farewell))
        self._broken.set_result(self._farewell)
        self._forget_all()

    def _forget_all(self) -> None:
        """Guardian and helper have gone, and with them, by the kernel's hand, every sandbox."""
        for order in self._orders.values():
            order.fail(BackendLost(f"no sandbox can be made any more: {self._farewell}"))
        self._orders.clear()
        self._end_sandboxes()
        self._ids.clear()

    def _end_sandboxes(self) -> None:
        for sandbox in self._sandboxes.values():
            sandbox.ended.set_result(Ending(lost=True))
        self._sandboxes.clear()


async def _wait_ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for the helper, which ends when its socket does; it cannot be told otherwise: it is root's."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
        process.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
