"""The path of a call: admission, code, pool, sandbox, outcome, on one screen.

A `Call` moves from room to room by plain method calls. A step that can answer at once does: code
pinned and a warm sandbox free means no task, no future and no await on the way. A step that must
wait keeps the call and comes back to it later, by the same method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from signal import SIGKILL
from typing import Any, Final

from stoker import verdicts
from stoker.admission import Ticket
from stoker.code import Cache, Pin
from stoker.deadlines import Deadlines
from stoker.errors import Impatient, NodeError, PayloadTooLarge, SandboxFailed, SandboxLost
from stoker.outputs import LogKeeper
from stoker.pool import Leaser, Pool
from stoker.pool.live import Live
from stoker.pool.recipes import Recipes
from stoker.types import (
    NO_LOGS,
    Ending,
    Function,
    FunctionError,
    Invocation,
    Outcome,
    Phases,
    Source,
    Status,
    Usage,
)
from stoker.verdicts import Verdict

LOAD_ALLOWANCE_S: Final = 10.0
"""The least that starting the runtime and importing the code may take, whatever the call's own limit."""
LEAVE_S: Final = 0.05
"""How long a call whose caller has left may go on."""

FRESH: Final = Source.FRESH
UNKNOWN_USAGE: Final = Usage()

Settle = Callable[["Call", Outcome | NodeError], None]


class Rooms:
    """What a call walks through; one object for all calls of a node."""

    __slots__ = (
        "clock",
        "code",
        "deadlines",
        "max_event_bytes",
        "pool",
        "recipes",
        "record",
        "spawn",
    )

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        code: Cache,
        pool: Pool,
        recipes: Recipes,
        deadlines: Deadlines,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        record: Callable[[Invocation, Outcome | NodeError, float], None],
        max_event_bytes: int,
    ) -> None:
        self.clock = clock
        self.code = code
        self.pool = pool
        self.recipes = recipes
        self.deadlines = deadlines
        self.spawn = spawn
        self.record = record
        self.max_event_bytes = max_event_bytes


class Call(Leaser):
    """One invocation on its way. Each step is entered once, by the room before it."""

    __slots__ = (
        "_admit_ms",
        "_asked",
        "_code_ms",
        "_cpu_ns",
        "_created_at",
        "_entered",
        "_function",
        "_has_left",
        "_init_ms",
        "_kills_before",
        "_lease",
        "_live",
        "_logs",
        "_number",
        "_pin",
        "_rooms",
        "_run_ms",
        "_sandbox_ms",
        "_settle_with",
        "_since",
        "_source",
        "_ticket",
        "caller",
        "expires_at",
        "invocation",
    )

    def __init__(
        self, rooms: Rooms, invocation: Invocation, ticket: Ticket, settle: Settle, caller: Any = None
    ) -> None:
        self._rooms = rooms
        self.invocation = invocation
        self.caller = caller
        """Whatever `settle` needs to tell who called."""
        self.expires_at = invocation.deadline
        self._created_at = time.time()
        self._since = self._entered = rooms.clock()
        self._admit_ms = self._code_ms = self._sandbox_ms = self._init_ms = self._run_ms = 0.0
        self._settle_with: Settle | None = settle
        self._ticket = ticket
        self._pin: Pin | None = None
        self._function: Function | None = None
        self._asked = 0
        self._has_left = False
        self._cpu_ns = 0
        self._kills_before = 0
        self._lease = 0
        self._live: Live | None = None
        """The sandbox that it is in, by the lease of that number."""
        self._source = FRESH
        self._number = 0
        self._logs: LogKeeper | None = None

    def __repr__(self) -> str:
        where = "settled" if self._settle_with is None else "inside" if self._live else "waiting"
        return f"<Call {self.invocation.id} of {self.invocation.function} {where}>"

    @property
    def phases(self) -> Phases:
        """Where its time has gone so far."""
        return Phases(self._admit_ms, self._code_ms, self._sandbox_ms, self._init_ms, self._run_ms)

    # The way in

    def start(self) -> None:
        rooms, invocation = self._rooms, self.invocation
        try:
            if len(invocation.body) > rooms.max_event_bytes:
                raise _too_large(invocation.body, rooms.max_event_bytes)
            self._admit_ms = self._lap()
            pin = rooms.code.pin(invocation.function)
        except NodeError as error:
            self._settle(error)
            return
        rooms.deadlines.watch(self)
        if pin is None:
            rooms.spawn(self._fetch())
        else:
            self.pinned(pin)

    async def _fetch(self) -> None:
        try:
            pin = await self._rooms.code.fetch(self.invocation.function)
        except NodeError as error:
            self._code_ms = self._lap()
            self._settle(error)
        else:
            self._code_ms = self._lap()
            self.pinned(pin)

    def pinned(self, pin: Pin) -> None:
        """The code is here and stays."""
        if self._settle_with is None:
            pin.release()
            return
        self._pin, self._function = pin, pin.version.function
        self._ask_for_lease(pin, self._function)

    def _ask_for_lease(self, pin: Pin, function: Function) -> None:
        invocation, rooms = self.invocation, self._rooms
        try:
            order = rooms.recipes.order(function, pin.version.folder, invocation.reuse, invocation.keep_s)
        except NodeError as error:
            self._settle(error)
            return
        self._asked = rooms.pool.lease(order.need, order.recipe, self)

    def leased(self, lease: int, live: Live, source: Source, runs_at_once: bool) -> None:
        """A sandbox is ours; in goes the event."""
        if self._settle_with is None:
            self._rooms.pool.give_back(lease, is_healthy=True)
            return
        assert self._function is not None
        rooms, limits, invocation = self._rooms, self._function.limits, self.invocation
        self._lease, self._live, self._source = lease, live, source
        self._sandbox_ms = self._lap()
        left_s, timeout_s = invocation.deadline - self._since, limits.timeout_s
        run_s = timeout_s if timeout_s < left_s else left_s
        allowed_s = run_s if live.loaded_at else min(max(timeout_s, LOAD_ALLOWANCE_S), left_s)
        self.expires_at = self._since + allowed_s
        budget_ms = int(run_s * 1000) if run_s > 0 else 0
        self._number = live.enter(
            self, bytes.fromhex(invocation.id), budget_ms, invocation.body, runs_at_once
        )
        if live.is_shared:
            self._kills_before = live.sandbox.hits().oom_kills
        if limits.cpu_s is not None:
            rooms.deadlines.look_at(self)

    def taken_back(self) -> None:
        """The call in front runs long, and this one had not begun: ask for another sandbox."""
        assert self._pin is not None and self._function is not None
        self._rooms.pool.give_back(self._lease, is_healthy=True)
        self._live, self._source = None, FRESH
        self._lease = self._asked = 0
        self.expires_at = self.invocation.deadline
        if self._has_left:
            self._end(verdicts.HAS_LEFT)
        else:
            self._ask_for_lease(self._pin, self._function)

    def loaded(self) -> None:
        """The function's code has been imported for this call; from here on its own time runs."""
        assert self._function is not None
        self._init_ms = self._lap()
        if not self._has_left:
            limit = self._rooms.clock() + self._function.limits.timeout_s
            self.expires_at = min(limit, self.invocation.deadline)

    def wrote(self, stream: int, data: bytes) -> None:
        """The function wrote to its stdout (1) or stderr (2)."""
        assert self._function is not None
        if self._logs is None:
            self._logs = LogKeeper(self._function.limits.log_bytes)
        total = self._logs.add(stream, data)
        if total > self._function.limits.output_bytes:
            self._end(verdicts.of_output(self._function.limits))

    # The ends

    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
        """The good end."""
        assert self._live is not None
        self._run_ms = run_ns / 1e6
        self._live.drain()
        self._end(verdicts.OK, result=result, cpu_ns=cpu_ns, is_healthy=True)

    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None:
        """The function failed, and its sandbox lives."""
        assert self._live is not None
        self._run_ms = run_ns / 1e6
        self._live.drain()
        self._end(verdicts.of_error(error), cpu_ns=cpu_ns, is_healthy=True)

    def load_failed(self, error: FunctionError) -> None:
        self._init_ms = self._lap()
        self._end(Verdict(status=Status.FUNCTION_ERROR, error=error))

    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None:
        """The process of this call, in a shared sandbox, ended without an answer."""
        self._run_ms = self._lap()
        assert self._live is not None and self._function is not None
        limits, meter = self._function.limits, self._live.meter
        if verdicts.is_for_cpu_time(signal, cpu_ns, limits):
            self._end(verdicts.of_cpu_time(limits), cpu_ns=cpu_ns, is_healthy=True)
            return
        ending = Ending(exit_code=None if exit_code < 0 else exit_code, signal=None if signal < 0 else signal)
        is_for_memory = signal == SIGKILL and meter.was_killed_for_memory(self._kills_before)
        verdict = verdicts.of_ending(ending, limits, is_for_memory)
        self._end(verdict, cpu_ns=cpu_ns, is_healthy=not is_for_memory)

    def sandbox_ended(self, ending: Ending, reason: str) -> None:
        """The sandbox ended under the call."""
        self._run_ms = self._lap()
        assert self._live is not None and self._function is not None
        meter = self._live.meter
        is_for_memory = ending.out_of_memory and meter.was_killed_for_memory(self._kills_before)
        if ending.lost:
            self._settle(SandboxLost())
        elif reason:
            self._end(verdicts.of_broken(reason))
        elif ending.destroyed and not is_for_memory:
            self._settle(SandboxFailed("the sandbox was destroyed while the function ran"))
        else:
            self._end(verdicts.of_ending(ending, self._function.limits, is_for_memory))

    def expire(self) -> None:
        """The deadline has passed."""
        self._run_ms = self._lap()
        if self._has_left:
            self._end(verdicts.HAS_LEFT)
            return
        if self._live is None:
            waited = self._rooms.clock() - self._entered
            self._settle(Impatient(f"the caller's deadline passed after {waited:.1f} s of waiting"))
            return
        assert self._function is not None
        limits = self._function.limits
        if self._live.loaded_at > 0:
            self._end(verdicts.of_wall_time(limits))
        else:
            self._end(verdicts.of_loading_time(max(limits.timeout_s, LOAD_ALLOWANCE_S)))

    def look(self) -> None:
        """Whether it has used more processor time than it may, as far as that is known while it runs."""
        assert self._function is not None and self._function.limits.cpu_s is not None
        if self._live is None or self._has_left or not self._live.runs_alone(self._number):
            return
        if self._live.meter.spent_s() >= self._function.limits.cpu_s:
            self._run_ms = self._lap()
            self._end(verdicts.of_cpu_time(self._function.limits))

    def leave(self) -> None:
        """The caller has left; nobody wants the answer.

        A call inside a sandbox is given a moment to end by itself: most do, and then a warm sandbox,
        perhaps with other calls inside, need not be destroyed.
        """
        if self._settle_with is None:
            return
        self._has_left = True
        if self._live is None:
            self._end(verdicts.HAS_LEFT)
        else:
            self.expires_at = min(self.expires_at, self._rooms.clock() + LEAVE_S)

    def refused(self, error: NodeError) -> None:
        """The pool has no sandbox for this call."""
        self._settle(error)

    # Settling

    def _end(
        self, verdict: Verdict, *, result: bytes = b"", cpu_ns: int = -1, is_healthy: bool = False
    ) -> None:
        live, pin, limit, usage = self._live, self._pin, verdict.limit, UNKNOWN_USAGE
        if cpu_ns >= 0:
            self._cpu_ns = cpu_ns
        if live is not None:
            meter = live.meter
            usage = meter.end(cpu_ns, self._run_ms, verdict.is_well)
            if limit is None and meter.was_read:
                limit = meter.met(verdict.error.errno if verdict.error else 0)
        if self._has_left:
            verdict, result, limit = verdicts.HAS_LEFT, b"", None
        outcome = Outcome(
            invocation=self.invocation.id,
            function=self.invocation.function,
            status=verdict.status,
            result=result,
            error=verdict.error,
            limit=limit,
            exit_code=verdict.exit_code,
            signal=verdict.signal,
            logs=NO_LOGS if self._logs is None else self._logs.kept(),
            phases=self.phases,
            usage=usage,
            sandbox=live.name if live is not None else "",
            source=self._source,
            built=pin is not None and pin.built,
            note=self._function.note if self._function is not None else "",
        )
        self._settle(outcome, is_healthy)

    def _settle(self, outcome: Outcome | NodeError, is_healthy: bool = False) -> None:
        """Reply once, and give back lease, pin and ticket, whatever happened."""
        settle, self._settle_with = self._settle_with, None
        if settle is None:
            return
        rooms, live = self._rooms, self._live
        try:
            settle(self, outcome)
        finally:
            self.caller = None  # which refers to us: that would be left to the garbage collector
            rooms.deadlines.forget(self)
            if live is not None:
                live.leave(self._number, has_answered=is_healthy)
                run_s = self._run_ms / 1000 if is_healthy else None
                has_written = self._logs is not None
                rooms.pool.give_back(self._lease, is_healthy, run_s, self._cpu_ns / 1e9, has_written)
            elif self._asked:
                rooms.pool.withdraw(self._asked)
            if self._pin is not None:
                self._pin.release()
            self._ticket.give_back()
            rooms.record(self.invocation, outcome, self._created_at)

    def _lap(self) -> float:
        """Milliseconds since the last lap."""
        now = self._rooms.clock()
        since, self._since = self._since, now
        return (now - since) * 1000


def _too_large(body: bytes, most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the event has {len(body)} bytes, this node takes at most {most}")
