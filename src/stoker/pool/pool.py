"""Acts on what the plan decides: makes sandboxes, hands them out, destroys them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stoker.errors import NodeError, SandboxFailed, Unsupported
from stoker.pool.events import (
    Action,
    BoundSpares,
    DestroySandbox,
    DropZygote,
    Event,
    Flaw,
    GrantLease,
    LeaseWithdrawn,
    LineageAged,
    LineageOver,
    MakeZygote,
    MeasureSandbox,
    Need,
    PrewarmChanged,
    RefuseLease,
    ReleaseLineage,
    Retired,
    SandboxEnded,
    SandboxGone,
    SandboxLoaded,
    SandboxMeasured,
    SandboxQueues,
    SandboxReady,
    SandboxStalled,
    Snapshot,
    SparesChanged,
    StartSandbox,
    Tick,
    ZygoteFailed,
    ZygoteReady,
)
from stoker.pool.freezing import NotWorth, Spoilt, Unfit, Zygote, make_packages_zygote, make_zygote
from stoker.pool.live import Guest, Live
from stoker.pool.plan import Plan
from stoker.pool.readers import Readers
from stoker.runtimes.greeting import Load
from stoker.sandboxes.contract import Backend, SandboxSpec
from stoker.types import MEBIBYTE, Network, Reuse, Source

HURRY_S = 0.005
"""Between two ticks while somebody waits: about what a start costs."""
HOUSEKEEPING_S = 0.5
SPARES_SHARE = 8
"""Spares have an eighth of the budget at most, and only of what nobody else has."""
STARTS_EACH = 3
"""Sandboxes made at a time for each processor: one computes, one waits for the kernel, one is handed over."""

log = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """How to make a sandbox that satisfies a need: the backend, what it is told and what is loaded."""

    backend: Backend
    spec: SandboxSpec
    load: Load


class Leaser(Guest):
    """Who asks for a lease; exactly one of the two is called, once, perhaps before `lease()` returns."""

    __slots__ = ()

    @abstractmethod
    def leased(self, lease: int, live: Live, source: Source, runs_at_once: bool) -> None:
        """The lease of that number is the right to send one call into this sandbox."""

    @abstractmethod
    def refused(self, error: NodeError) -> None: ...


Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Pool:
    """Every live sandbox of the node; `spawn` starts a background task in the node's task group.

    `bound_spares` is told the memory that spares may hold, whenever that changes; None: there are none.
    In `staging`, on the disk that code is on, packages are shown alone.
    """

    def __init__(
        self,
        budget_mb: int,
        spawn: Spawn,
        keeping: str,
        keep_s: float | None = None,
        bound_spares: Callable[[int], None] | None = None,
        zygotes_mb: int = 0,
        staging: Path | None = None,
    ) -> None:
        starts_at_once = STARTS_EACH * len(os.sched_getaffinity(0))
        spare_mb = budget_mb // SPARES_SHARE if bound_spares is not None else 0
        self._plan = Plan(budget_mb, keeping, keep_s, starts_at_once, spare_mb, zygotes_mb)
        self._bound_spares = bound_spares or (lambda memory_mb: None)
        self._bound_spares(spare_mb)
        self.on_release: Callable[[int], None] = lambda lineage: None
        """Told a lineage that has aged, when nothing that is frozen needs it any more."""
        self._spawn = spawn
        self._staging = staging or Path(tempfile.gettempdir())
        self._loop = asyncio.get_running_loop()
        self._lease_numbers = itertools.count(1)
        self._leasers: dict[int, Leaser] = {}
        self._recipes: dict[str, Callable[[str], Recipe]] = {}
        self._live: dict[int, Live] = {}
        self._readers = Readers()
        self._queueing: dict[int, Live] = {}
        self._starting: set[int] = set()
        self._doomed: set[int] = set()
        self._zygotes: dict[int, Zygote] = {}
        self._making: dict[int, asyncio.Task[None]] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._hurrier: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event = asyncio.Event()
        self._due: list[Action] | None = None
        """What is being carried out and what comes after it; None: nothing is."""
        self._act_on: dict[type, Callable[[Any], None]] = {
            GrantLease: self._grant,
            StartSandbox: self._start,
            DestroySandbox: self._destroy,
            RefuseLease: self._refuse,
            BoundSpares: lambda action: self._bound_spares(action.memory_mb),
            MakeZygote: self._make_zygote,
            DropZygote: self._drop_zygote,
            ReleaseLineage: lambda action: self.on_release(action.lineage),
            MeasureSandbox: self._measure,
        }
        self._tick()

    def __repr__(self) -> str:
        return f"<Pool {self._plan.snapshot()}>"

    # What the others ask

    def lease(self, need: Need, recipe: Callable[[str], Recipe], leaser: Leaser) -> int:
        """Ask for a lease; `recipe(name)` is called when a sandbox has to be made for it."""
        number = next(self._lease_numbers)
        self._leasers[number] = leaser
        if need.key not in self._recipes:
            self._recipes[need.key] = recipe
        self._carry_out(self._plan.asked(number, need, time.monotonic()))
        if self._hurrier is None and self._plan.has_waiting:
            self._hurry()
        return number

    def give_back(
        self,
        number: int,
        is_healthy: bool,
        run_s: float | None = None,
        cpu_s: float = 0.0,
        has_written: bool = False,
    ) -> None:
        """The call is over; with how long the function itself ran, if it came to an answer."""
        now = time.monotonic()
        if actions := self._plan.returned(number, is_healthy, run_s, cpu_s, has_written, now):
            self._carry_out(actions)

    def withdraw(self, number: int) -> None:
        """The caller does not wait any more."""
        if self._leasers.pop(number, None) is not None:
            self._feed(LeaseWithdrawn(number))

    def retire(self, revision: str) -> None:
        """The version is not current any more: idle sandboxes of it go, busy ones after their calls."""
        self._feed(Retired(revision=revision))

    def set_prewarm(self, functions: int, each: int) -> None:
        """Keep `each` started sandboxes waiting for each of the most recently used functions."""
        self._feed(PrewarmChanged(functions, each))

    def spares_changed(self, number: int, memory_mb: int) -> None:
        """There may be so many, and they may hold so much."""
        self._feed(SparesChanged(number, memory_mb))

    def lineage_aged(self, lineage: int) -> None:
        """Make anew what is frozen of it; until that is done, sandboxes are asked for by its number."""
        self._feed(LineageAged(lineage))

    def lineage_over(self, lineage: int) -> None:
        """Nothing can start from what is frozen of it any more."""
        self._feed(LineageOver(lineage))

    async def clear(self, catalog: str) -> None:
        """Destroy the sandboxes of a catalog's functions; returns when the idle ones are gone."""
        before = set(self._live) | self._starting
        self._feed(Retired(prefix=f"{catalog}/"))
        while any(number in self._doomed for number in before):
            self._emptied.clear()
            await self._emptied.wait()

    def snapshot(self) -> Snapshot:
        return self._plan.snapshot()

    async def close(self) -> None:
        """Destroy every sandbox. No lease is out any more, or its caller does not care."""
        for timer in filter(None, (self._ticker, self._hurrier)):
            timer.cancel()
        self._feed(PrewarmChanged(0, 0))
        for number in [*self._live, *self._starting]:
            self._feed(SandboxEnded(number))
        for task in self._making.values():
            task.cancel()
        while self._live or self._starting or self._doomed or self._making:
            self._emptied.clear()
            await self._emptied.wait()
        while self._zygotes:
            os.close(self._zygotes.popitem()[1].file)
        self._readers.close()

    # Acting

    def _feed(self, event: Event) -> None:
        self._carry_out(self._plan.on(event, time.monotonic()))

    def _carry_out(self, actions: list[Action]) -> None:
        """In the order in which all was decided: what happens meanwhile comes after what is being done."""
        if self._due is not None:
            self._due += actions
            return
        self._due = actions
        try:
            for action in actions:  # those that are added on the way too
                self._act_on[type(action)](action)
        finally:
            self._due = None

    def _grant(self, action: GrantLease) -> None:
        leaser = self._leasers.pop(action.lease, None)
        if leaser is None:  # withdrawn while the actions of one event were carried out
            self._loop.call_soon(self.give_back, action.lease, True)
            return
        leaser.leased(action.lease, self._live[action.sandbox], action.source, action.runs_at_once)
        if not action.runs_at_once and self._hurrier is None:
            self._hurry()

    def _refuse(self, action: RefuseLease) -> None:
        leaser = self._leasers.pop(action.lease, None)
        if leaser is not None:
            refusal = Unsupported if action.is_for_good else SandboxFailed
            leaser.refused(refusal(action.reason))

    def _start(self, action: StartSandbox) -> None:
        recipe = self._recipes[action.need.key]
        zygote = self._zygotes.get(action.zygote)
        try:
            # Of its own: the zygote may be dropped before it has been sent.
            own = zygote._replace(file=os.dup(zygote.file)) if zygote is not None else None
        except OSError as error:
            self._tell_failure(action.sandbox, action.need, error)
            return
        self._starting.add(action.sandbox)
        self._spawn(self._make(action.sandbox, action.need, recipe, own))

    async def _make(
        self, number: int, need: Need, recipe_for: Callable[[str], Recipe], zygote: Zygote | None
    ) -> None:
        suffix = f"{int(time.monotonic()) % 100_000}_{number}"
        name = need.function.rpartition("/")[2].lower()
        try:
            recipe = recipe_for(f"hf_{name[:32]}__{suffix}")
            spec = recipe.spec
            if zygote is not None:  # goes along with LOAD, which so is ours to send
                spec = msgspec.structs.replace(spec, opening=b"", lineage=zygote.lineage)
            sandbox = await recipe.backend.create(spec)
            shown = f"hf_{name}__{'rest' if need.reuse is Reuse.SANDBOX else suffix}"
            load = msgspec.structs.replace(recipe.load, code=sandbox.code_path)
            live = Live(
                shown,
                sandbox,
                load,
                is_exact=recipe.spec.limits.cpu_s is not None or recipe.spec.network is not Network.NONE,
                on_up=lambda: self._up(number),
                zygote=zygote.file if zygote is not None else None,
                on_end=lambda: self._feed(SandboxEnded(number)),
                on_queues=lambda: self._queues(number),
                on_load=lambda loading: self._feed(SandboxLoaded(number, *loading)),
            )
            self._live[number] = live
            await live.connect(self._readers)
        except (NodeError, OSError) as error:
            self._tell_failure(number, need, error)
        finally:
            if zygote is not None:
                os.close(zygote.file)
        # Only now: until it is connected, the channel belongs to the transport and to the sandbox, and
        # whoever closes both closes a descriptor twice, which by the second time may be another's.
        self._starting.discard(number)
        if number in self._doomed:
            self._spawn(self._end(number))

    def _tell_failure(self, number: int, need: Need, error: NodeError | OSError) -> None:
        log.warning("no sandbox for %s: %s", need.function, error)
        self._feed(SandboxEnded(number, f"no sandbox for {need.function}: {error}"))

    def _up(self, number: int) -> None:
        if number not in self._doomed:
            self._feed(SandboxReady(number))

    def _queues(self, number: int) -> None:
        if number not in self._doomed:
            self._queueing[number] = self._live[number]
            self._feed(SandboxQueues(number))

    def _take_back_stalled(self) -> None:
        """Calls that queue behind one that turned out long go elsewhere."""
        now = time.monotonic()
        for number, live in list(self._queueing.items()):
            if len(live.guests) > 1 and live.stands_still(now) and (taken := live.take_back()):
                del self._queueing[number]
                self._feed(SandboxStalled(number))
                for guest in taken:
                    guest.taken_back()

    def _measure(self, action: MeasureSandbox) -> None:
        live = self._live.get(action.sandbox)
        held_bytes = None if live is None else live.sandbox.held_bytes()
        held_mb = None if held_bytes is None else math.ceil(held_bytes / MEBIBYTE)
        self._feed(SandboxMeasured(action.sandbox, held_mb))

    def _destroy(self, action: DestroySandbox) -> None:
        self._doomed.add(action.sandbox)
        self._queueing.pop(action.sandbox, None)
        if action.sandbox not in self._starting:
            self._spawn(self._end(action.sandbox))

    async def _end(self, number: int) -> None:
        live = self._live.pop(number, None)
        if live is not None:
            live.close()
            await live.sandbox.destroy()
        self._doomed.discard(number)
        self._feed(SandboxGone(number))
        self._emptied.set()

    def _make_zygote(self, action: MakeZygote) -> None:
        recipe = self._recipes[action.need.key]
        task = self._loop.create_task(self._bring_up(action, recipe))
        self._making[action.zygote] = task

    async def _bring_up(self, action: MakeZygote, recipe_for: Callable[[str], Recipe]) -> None:
        number, of = action.zygote, action.need.function
        if action.imports:
            of = f"{', '.join(sorted(action.imports))} as {of} and others have it"
        try:
            recipe, trial = (recipe_for(f"zygote_{number}_{step}") for step in ("load", "try"))
            if action.imports:
                zygote = await make_packages_zygote(recipe, trial, action.imports, self._staging)
            else:
                zygote = await make_zygote(recipe, trial)
        except Unfit as error:
            log.info("%s has no zygote: %s", of, error)
            event: Event = ZygoteFailed(number, Flaw.LASTING)
        except asyncio.CancelledError:
            event = ZygoteFailed(number, Flaw.NONE)
        except NotWorth as error:
            log.info("%s has no zygote for now: %s", of, error)
            event = ZygoteFailed(number, Flaw.NONE)
        except (Spoilt, NodeError, OSError) as error:
            log.info("%s has no zygote for now: %s", of, error)
            event = ZygoteFailed(number, Flaw.PASSING)
        else:
            log.info("%s has a zygote of %d MB", of, zygote.memory_mb)
            self._zygotes[number] = zygote
            event = ZygoteReady(number, zygote.memory_mb, zygote.lineage)
        del self._making[number]
        self._emptied.set()
        self._feed(event)

    def _drop_zygote(self, action: DropZygote) -> None:
        if action.zygote in self._zygotes:
            os.close(self._zygotes.pop(action.zygote).file)
        elif action.zygote in self._making:
            self._making[action.zygote].cancel()

    def _tick(self) -> None:
        self._look()
        self._ticker = self._loop.call_later(HOUSEKEEPING_S, self._tick)

    def _look(self) -> None:
        """Have the plan look at how things stand; again soon, as long as somebody waits."""
        self._take_back_stalled()
        self._feed(Tick())
        known = self._plan.known
        if len(self._recipes) > len(known):
            self._recipes = {key: recipe for key, recipe in self._recipes.items() if key in known}
        if self._hurrier is None and self._somebody_waits():
            self._hurry()

    def _hurry(self) -> None:
        """Look soon, if somebody still waits then: a cold call mostly does not."""
        self._hurrier = self._loop.call_later(HURRY_S, self._hurry_on)

    def _hurry_on(self) -> None:
        self._hurrier = None
        if self._somebody_waits():
            self._look()

    def _somebody_waits(self) -> bool:
        return self._plan.has_waiting or any(len(live.guests) > 1 for live in self._queueing.values())
