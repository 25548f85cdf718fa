"""A node with canned answers, and a request on paper: for tests of a door's two translations alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stoker.admission import Gate, Ticket
from stoker.doors.exchange import Request
from stoker.errors import AlreadyExists, NodeError, NoSuchFunction
from stoker.records.model import FunctionConfig, FunctionRecord, InvocationRecord
from stoker.settings import Settings
from stoker.telemetry.metrics import Metrics
from stoker.types import Invocation, Outcome, Phases, Reuse, Status

ID = "0190c0de000070008000000000000001"


def outcome(status: Status = Status.OK, **more: Any) -> Outcome:
    """An outcome of the canned id, with recognisable phases."""
    more.setdefault("phases", Phases(admit=0.01, code=0.002, sandbox=1.5, init=20.25, run=98.7))
    more.setdefault("sandbox", "hf_w1__9437_98081")
    return Outcome(invocation=ID, function="front/W1", status=status, **more)


class Paper:
    """An `Exchange` that keeps its reply."""

    def __init__(self, method: str, target: str, body: bytes = b"") -> None:
        path, _, query = target.partition("?")
        self.request = Request(method, path, query.encode())
        self.body = body
        self.received = time.monotonic()
        self.on_left: Callable[[], None] | None = None
        self.replies: list[tuple[int, dict[bytes, bytes], bytes]] = []

    def reply(self, status: int, head: bytes, body: bytes) -> None:
        assert head.endswith(b"\r\n")
        lines = head.split(b"\r\n")[:-1]
        headers = {name: value for name, _, value in (line.partition(b": ") for line in lines)}
        assert len(headers) == len(lines), "a header twice"
        self.replies.append((status, headers, body))

    turn_away = reply

    @property
    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        (only,) = self.replies
        return only


class CannedCall:
    def __init__(self, invocation: Invocation, caller: object) -> None:
        self.invocation = invocation
        self.caller = caller
        self.has_left = False
        self.phases = Phases()

    def leave(self) -> None:
        self.has_left = True


class CannedPin:
    def __init__(self) -> None:
        self.is_released = False

    def release(self) -> None:
        assert not self.is_released
        self.is_released = True


class CannedCode:
    """What a door may do with the code room."""

    def __init__(self) -> None:
        self.list: list[str] | NodeError = []
        self.broken: dict[str, NodeError] = {}
        self.fetched: list[str] = []
        self.pins: list[CannedPin] = []
        self.forgotten: list[str] = []
        self.limits: list[int] = []

    async def names(self, catalog: str) -> list[str]:
        if isinstance(self.list, NodeError):
            raise self.list
        return self.list

    async def fetch(self, key: str) -> CannedPin:
        self.fetched.append(key)
        if key in self.broken:
            raise self.broken[key]
        self.pins.append(CannedPin())
        return self.pins[-1]

    def set_limit(self, bytes_: int) -> None:
        self.limits.append(bytes_)

    def snapshot(self) -> dict[str, int]:
        return {"size_bytes": 0}

    def forget_catalog(self, name: str) -> None:
        self.forgotten.append(name)


class CannedPool:
    """What a door may do with the pool."""

    def __init__(self) -> None:
        self.cleared: list[str] = []
        self.prewarm: list[tuple[int, int]] = []

    async def clear(self, catalog: str) -> None:
        self.cleared.append(catalog)

    def snapshot(self) -> dict[str, int]:
        return {"busy": 0}

    def set_prewarm(self, limit: int, num: int) -> None:
        self.prewarm.append((limit, num))


class CannedFunctions:
    """Deployed functions in a dictionary; remembers what was wished."""

    def __init__(self) -> None:
        self.known: dict[str, FunctionRecord] = {}
        self.wishes: list[dict[str, Any]] = []

    async def get(self, ref: str) -> FunctionRecord:
        for record in self.known.values():
            if ref in (record.name, record.id):
                return record
        raise NoSuchFunction(f"there is no function {ref!r}")

    async def list(self, limit: int, offset: int = 0, name: str | None = None) -> list[FunctionRecord]:
        found = [record for record in self.known.values() if name in (None, record.name)]
        return found[offset : offset + limit]

    async def create(self, name: str, code: bytes, **fields: Any) -> FunctionRecord:
        self.wishes.append({"name": name, "code": code, **fields})
        if name in self.known:
            raise AlreadyExists(f"there is a function {name!r} already")
        self.known[name] = function_record(name)
        return self.known[name]

    async def change(self, ref: str, **fields: Any) -> FunctionRecord:
        self.wishes.append(fields)
        return await self.get(ref)

    async def delete(self, ref: str) -> FunctionRecord:
        return self.known.pop((await self.get(ref)).name)


def function_record(name: str) -> FunctionRecord:
    return FunctionRecord(
        id=ID[:-1] + "f",
        name=name,
        runtime="python",
        handler="main.lambda_handler",
        digest="d1",
        config=FunctionConfig(reuse=Reuse.PROCESS),
        created_at=1_700_000_000.0,
        updated_at=1_700_000_000.25,
    )


class CannedRecords:
    """Invocations of one function, newest first."""

    def __init__(self) -> None:
        self.function = ""
        self.kept: list[InvocationRecord] = []

    async def invocations(self, function: str, limit: int, after: str | None) -> list[InvocationRecord]:
        kept = self.kept if function == self.function else []
        return [one for one in reversed(kept) if one.id > after][:limit] if after else kept[:limit]


class CannedNode:
    """Settles every call at once with `end`; with None it leaves it open, and `settle` in `open_calls`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(home=Path("/nowhere"), **settings)
        self.end: Outcome | NodeError | None = outcome(result=b"{}")
        self.calls: list[Invocation] = []
        self.open_calls: list[tuple[CannedCall, Callable[[Outcome | NodeError], None]]] = []
        self.code = CannedCode()
        self.pool = CannedPool()
        self.functions = CannedFunctions()
        self.records = CannedRecords()
        self.metrics = Metrics()
        self.is_draining = False
        self.refusal: NodeError | None = None
        self.gate = Gate(1000, 1000)

    def admit(self, function: str, now: float) -> Ticket:
        if self.refusal is not None:
            raise self.refusal
        return self.gate.admit(function, now)

    def new_id(self) -> str:
        return ID

    def call(
        self,
        invocation: Invocation,
        ticket: Ticket,
        settle: Callable[[CannedCall, Outcome | NodeError], None],
        caller: object,
    ) -> CannedCall:
        ticket.give_back()
        self.calls.append(invocation)
        call = CannedCall(invocation, caller)
        if self.end is None:
            self.open_calls.append((call, partial(settle, call)))
        else:
            settle(call, self.end)
        return call
