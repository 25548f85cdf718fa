"""The path of a call: admission, code, pool, sandbox, outcome, on one screen.

A `Call` moves from room to room by plain method calls. A step that can answer at once does: code
pinned and a warm sandbox free means no task, no future and no await on the way. A step that must
wait keeps the call and comes back to it later, by the same method.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from stoker.admission import Gate, Ticket
from stoker.deadlines import Deadlines
from stoker.errors import Impatient, NodeError, PayloadTooLarge, SandboxFailed, SandboxLost
from stoker.outputs import LogKeeper
from stoker.pool import Lease, Pool
from stoker.pool.recipes import Recipes
from stoker.types import (
    Ending,
    Function,
    FunctionError,
    Invocation,
    Logs,
    Outcome,
    Phases,
    Source,
    Status,
    Usage,
)

LOAD_ALLOWANCE_S = 10.0
"""The least that starting the runtime and importing the code may take, whatever the call's own limit."""
LEAVE_S = 0.05
"""How long a call whose caller has left may go on."""

log = logging.getLogger(__name__)

Settle = Callable[[Outcome | NodeError], None]


class Version(Protocol):
    """What `code` pins."""

    @property
    def function(self) -> Function: ...
    @property
    def folder(self) -> Any: ...


class Pin(Protocol):
    """A version that stays while it is held."""

    built: bool

    @property
    def version(self) -> Version: ...
    def release(self) -> None: ...


class Code(Protocol):
    """The room that has the code."""

    def pin(self, key: str) -> Pin | None: ...
    async def fetch(self, key: str) -> Pin: ...


class Rooms:
    """What a call walks through; one object for all calls of a node."""

    __slots__ = (
        "clock",
        "code",
        "deadlines",
        "gate",
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
        gate: Gate,
        code: Code,
        pool: Pool,
        recipes: Recipes,
        deadlines: Deadlines,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        record: Callable[[Invocation, Outcome | NodeError, float], None],
        max_event_bytes: int,
    ) -> None:
        self.clock = clock
        self.gate = gate
        self.code = code
        self.pool = pool
        self.recipes = recipes
        self.deadlines = deadlines
        self.spawn = spawn
        self.record = record
        self.max_event_bytes = max_event_bytes


class Call:
    """One invocation on its way. Each step is entered once, by the room before it."""

    __slots__ = (
        "_asked",
        "_cpu_ns",
        "_created_at",
        "_entered",
        "_function",
        "_has_left",
        "_lease",
        "_logs",
        "_number",
        "_pin",
        "_rooms",
        "_settle_with",
        "_since",
        "_ticket",
        "expires_at",
        "invocation",
        "phases",
    )

    def __init__(self, rooms: Rooms, invocation: Invocation, settle: Settle) -> None:
        self._rooms = rooms
        self.invocation = invocation
        self.expires_at = invocation.deadline
        self.phases = Phases()
        self._created_at = time.time()
        self._since = self._entered = rooms.clock()
        self._settle_with: Settle | None = settle
        self._ticket: Ticket | None = None
        self._pin: Pin | None = None
        self._function: Function | None = None
        self._asked = 0
        self._has_left = False
        self._cpu_ns = 0
        self._lease: Lease | None = None
        self._number = 0
        self._logs: LogKeeper | None = None

    def __repr__(self) -> str:
        where = "settled" if self._settle_with is None else "inside" if self._lease else "waiting"
        return f"<Call {self.invocation.id} of {self.invocation.function} {where}>"

    # The way in

    def start(self) -> None:
        rooms, invocation = self._rooms, self.invocation
        try:
            self._check_size()
            self._ticket = rooms.gate.admit(invocation.function)
            self.phases.admit = self._lap()
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
            self.phases.code = self._lap()
            self._settle(error)
        else:
            self.pinned(pin)

    def pinned(self, pin: Pin) -> None:
        """The code is here and stays."""
        if self._settle_with is None:
            pin.release()
            return
        self._pin, self._function = pin, pin.version.function
        self.phases.code = self._lap()
        self._ask_for_lease(pin)

    def _ask_for_lease(self, pin: Pin) -> None:
        invocation, rooms = self.invocation, self._rooms
        try:
            order = rooms.recipes.order(
                pin.version.function, pin.version.folder, invocation.reuse, invocation.keep_s
            )
        except NodeError as error:
            self._settle(error)
            return
        self._asked = rooms.pool.lease(order.need, order.recipe, self)

    def leased(self, lease: Lease) -> None:
        """A sandbox is ours; in goes the event."""
        if self._settle_with is None:
            self._rooms.pool.give_back(lease.number, is_healthy=True)
            return
        assert self._function is not None
        self._lease, live, invocation = lease, lease.live, self.invocation
        self.phases.sandbox = self._lap()
        left_s, timeout_s = invocation.deadline - self._since, self._function.limits.timeout_s
        run_s = timeout_s if timeout_s < left_s else left_s
        allowed_s = run_s if live.loaded_at else min(max(timeout_s, LOAD_ALLOWANCE_S), left_s)
        self.expires_at = self._since + allowed_s
        budget_ms = int(run_s * 1000) if run_s > 0 else 0
        self._number = live.enter(
            self, bytes.fromhex(invocation.id), budget_ms, invocation.body, lease.runs_at_once
        )

    def taken_back(self) -> None:
        """The call in front runs long, and this one had not begun: ask for another sandbox."""
        assert self._lease is not None and self._pin is not None
        self._rooms.pool.give_back(self._lease.number, is_healthy=True)
        self._lease = None
        self._asked = 0
        self.expires_at = self.invocation.deadline
        if self._has_left:
            self._end(Status.CANCELLED, HAS_LEFT)
        else:
            self._ask_for_lease(self._pin)

    def loaded(self) -> None:
        """The function's code has been imported for this call; from here on its own time runs."""
        assert self._function is not None
        self.phases.init = self._lap()
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
            limit = f"more than {self._function.limits.output_bytes} bytes written to stdout or stderr"
            self._end(Status.OUTPUT_TOO_LARGE, FunctionError("OutputTooLarge", limit))

    # The ends

    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
        """The good end."""
        self._drain(run_ns)
        self._end(Status.OK, None, result=result, cpu_ns=cpu_ns, is_healthy=True)

    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None:
        """The function failed, and its sandbox lives."""
        self._drain(run_ns)
        status = Status.OUTPUT_TOO_LARGE if error.type == "ResultTooLarge" else Status.FUNCTION_ERROR
        self._end(status, error, cpu_ns=cpu_ns, is_healthy=True)

    def load_failed(self, error: FunctionError) -> None:
        self.phases.init = self._lap()
        self._end(Status.FUNCTION_ERROR, error)

    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None:
        """The process of this call, in a shared sandbox, ended without an answer."""
        self.phases.run = self._lap()
        assert self._lease is not None
        ending = Ending(
            exit_code=None if exit_code < 0 else exit_code,
            signal=None if signal < 0 else signal,
            out_of_memory=signal > 0 and self._lease.live.has_new_oom_kill(),
        )
        self._end(*self._verdict(ending), cpu_ns=cpu_ns, is_healthy=not ending.out_of_memory)

    def sandbox_ended(self, ending: Ending, reason: str) -> None:
        """The sandbox ended under the call."""
        self.phases.run = self._lap()
        if ending.lost:
            self._settle(SandboxLost())
        elif reason:
            self._end(Status.CRASHED, FunctionError("Crashed", f"the runtime was ended: {reason}"))
        elif ending.destroyed and not ending.out_of_memory:
            self._settle(SandboxFailed("the sandbox was destroyed while the function ran"))
        else:
            self._end(*self._verdict(ending), usage=ending.usage)

    def expire(self) -> None:
        """The deadline has passed."""
        self.phases.run = self._lap()
        if self._has_left:
            self._end(Status.CANCELLED, HAS_LEFT)
            return
        if self._lease is None:
            waited = self._rooms.clock() - self._entered
            self._settle(Impatient(f"the caller's deadline passed after {waited:.1f} s of waiting"))
            return
        assert self._function is not None
        what = "did not answer" if self._lease.live.loaded_at else "was not loaded"
        message = f"the function {what} within its limit of {self._function.limits.timeout_s:g} s"
        self._end(Status.TIMED_OUT, FunctionError("TimedOut", message))

    def leave(self) -> None:
        """The caller has left; nobody wants the answer.

        A call inside a sandbox is given a moment to end by itself: most do, and then a warm sandbox,
        perhaps with other calls inside, need not be destroyed.
        """
        if self._settle_with is None:
            return
        self._has_left = True
        if self._lease is None:
            self._end(Status.CANCELLED, HAS_LEFT)
        else:
            self.expires_at = min(self.expires_at, self._rooms.clock() + LEAVE_S)

    def refused(self, error: NodeError) -> None:
        """The pool has no sandbox for this call."""
        self._settle(error)

    # Settling

    def _verdict(self, ending: Ending) -> tuple[Status, FunctionError]:
        assert self._function is not None
        if ending.out_of_memory:
            message = f"the function used more than its {self._function.limits.memory_mb} MB of memory"
            return Status.OUT_OF_MEMORY, FunctionError("OutOfMemory", message)
        if ending.signal is not None:
            name = signal.Signals(ending.signal).name if ending.signal in SIGNALS else str(ending.signal)
            return Status.CRASHED, FunctionError("Crashed", f"the function was killed by {name}")
        message = f"the function exited with code {ending.exit_code} before it answered"
        return Status.CRASHED, FunctionError("Exited", message)

    def _end(
        self,
        status: Status,
        error: FunctionError | None,
        *,
        result: bytes = b"",
        cpu_ns: int = -1,
        usage: Usage | None = None,
        is_healthy: bool = False,
    ) -> None:
        lease, pin = self._lease, self._pin
        if self._has_left:
            status, error, result = Status.CANCELLED, HAS_LEFT, b""
        if cpu_ns >= 0:
            self._cpu_ns = cpu_ns
            usage = Usage(cpu_ms=cpu_ns / 1e6)
        outcome = Outcome(
            invocation=self.invocation.id,
            function=self.invocation.function,
            status=status,
            result=result,
            error=error,
            logs=NO_LOGS if self._logs is None else self._logs.kept(),
            phases=self.phases,
            usage=usage or UNKNOWN_USAGE,
            sandbox=lease.live.name if lease else "",
            source=lease.source if lease else Source.FRESH,
            built=pin.built if pin else False,
            note=self._function.note if self._function else "",
        )
        self._settle(outcome, is_healthy)

    def _settle(self, outcome: Outcome | NodeError, is_healthy: bool = False) -> None:
        """Reply once, and give back lease, pin and ticket, whatever happened."""
        settle, self._settle_with = self._settle_with, None
        if settle is None:
            return
        rooms = self._rooms
        try:
            settle(outcome)
        finally:
            rooms.deadlines.forget(self)
            if self._lease is not None:
                self._lease.live.leave(self._number)
                run_s = self.phases.run / 1000 if is_healthy else None
                has_written = self._logs is not None
                rooms.pool.give_back(self._lease.number, is_healthy, run_s, self._cpu_ns / 1e9, has_written)
            elif self._asked:
                rooms.pool.withdraw(self._asked)
            if self._pin is not None:
                self._pin.release()
            if self._ticket is not None:
                self._ticket.give_back()
            rooms.record(self.invocation, outcome, self._created_at)

    def _check_size(self) -> None:
        size, most = len(self.invocation.body), self._rooms.max_event_bytes
        if size > most:
            raise PayloadTooLarge(f"the event has {size} bytes, this node takes at most {most}")

    def _drain(self, run_ns: int) -> None:
        """Everything written before the answer is in the pipes by now."""
        assert self._lease is not None
        self.phases.run = run_ns / 1e6
        self._lease.live.drain()

    def _lap(self) -> float:
        """Milliseconds since the last lap."""
        now = self._rooms.clock()
        since, self._since = self._since, now
        return (now - since) * 1000


NO_LOGS = Logs()
UNKNOWN_USAGE = Usage()
HAS_LEFT = FunctionError("Cancelled", "the caller left before the answer")
SIGNALS = frozenset(int(one) for one in signal.Signals)
