"""The path of a call over the fake sandbox: every end, and everything given back after it."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uuid_utils

from stoker.admission import Gate
from stoker.deadlines import Deadlines
from stoker.errors import (
    Draining,
    Impatient,
    NodeError,
    NoSuchFunction,
    PayloadTooLarge,
    SandboxFailed,
    TooBusy,
    Unsupported,
)
from stoker.invoke import Call, Rooms
from stoker.pool import Pool
from stoker.pool.recipes import Recipes
from stoker.sandboxes import fake
from stoker.sandboxes.contract import Launch
from stoker.types import Function, Invocation, LimitHit, Limits, Outcome, Reuse, Source, Status

FOLDER = Path("/nowhere")
LAUNCHES = {
    f"fake-{way}": Launch(name=f"fake-{way}", argv=(f"fake.{way}",))
    for way in ("run", "short", "refuse", "exit")
}


class Version:
    def __init__(self, function: Function) -> None:
        self.function = function
        self.folder = FOLDER


class Pin:
    def __init__(self, shelf: Shelf, version: Version, built: bool) -> None:
        self.version = version
        self.built = built
        self._shelf = shelf
        shelf.pins += 1

    def release(self) -> None:
        self._shelf.pins -= 1


class Shelf:
    """Code that is there, and code that comes when asked for."""

    def __init__(self) -> None:
        self.here: dict[str, Version] = {}
        self.to_come: dict[str, asyncio.Future[Version]] = {}
        self.pins = 0

    def put(self, name: str = "f", **changes: Any) -> str:
        limits = changes.pop("limits", Limits(timeout_s=5))
        fields = {
            "runtime": "fake",
            "version": "run",
            "handler": "main.f",
            "revision": f"{name}-1",
            **changes,
        }
        self.here[f"front/{name}"] = Version(
            Function(key=f"front/{name}", name=name, limits=limits, **fields)
        )
        return f"front/{name}"

    def pin(self, key: str) -> Pin | None:
        version = self.here.get(key)
        if version is None and key not in self.to_come:
            raise NoSuchFunction(f"no function {key!r}")
        return Pin(self, version, built=False) if version else None

    async def fetch(self, key: str) -> Pin:
        return Pin(self, await asyncio.shield(self.to_come[key]), built=True)


class Caller:
    """Refers to its call, as whoever waits at a door does."""

    on_left: Callable[[], None]


class House:
    """The rooms a call walks through, and what came out of them."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        budget_mb: int = 1000,
        max_calls: int = 50,
        bound_spares: Callable[[int], None] | None = None,
    ) -> None:
        self.shelf = Shelf()
        self.backend = fake.Backend(fake.Settings(), tuple(LAUNCHES.values()))
        self.gate = Gate(max_calls, max_calls)
        self.pool = Pool(budget_mb, tasks.create_task, "greedy_dual", bound_spares=bound_spares)
        self.deadlines = Deadlines()
        self.records: list[Outcome | NodeError] = []
        self.rooms = Rooms(
            clock=time.monotonic,
            code=self.shelf,
            pool=self.pool,
            recipes=Recipes({"fake": self.backend}, "fake", LAUNCHES),
            deadlines=self.deadlines,
            spawn=tasks.create_task,
            record=lambda invocation, end, created_at: self.records.append(end),
            max_event_bytes=100_000,
        )

    def start(self, key: str, event: object = None, **changes: Any) -> tuple[Call, asyncio.Future[Any]]:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[Any] = loop.create_future()
        fields = {"deadline": loop.time() + 30, "reuse": Reuse.PROCESS, **changes}
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        invocation = Invocation(id=uuid_utils.uuid7().hex, function=key, body=body, **fields)
        ticket = self.gate.admit(key, loop.time())
        caller = Caller()
        call = Call(self.rooms, invocation, ticket, lambda call, end: settled.set_result(end), caller)
        caller.on_left = call.leave
        call.start()
        return call, settled

    async def call(self, key: str, event: object = None, **changes: Any) -> Any:
        async with asyncio.timeout(10):
            try:
                return await self.start(key, event, **changes)[1]
            except NodeError as refusal:
                return refusal

    def assert_all_given_back(self) -> None:
        assert self.gate.inside == 0
        assert self.shelf.pins == 0
        snapshot = self.pool.snapshot()
        assert (snapshot.busy, snapshot.waiting) == (0, 0)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with asyncio.TaskGroup() as tasks:
        house = House(tasks)
        yield house
        house.assert_all_given_back()
        await house.pool.close()
        assert house.pool.snapshot().committed_mb == 0
        house.deadlines.close()


async def test_a_call_is_answered_with_the_functions_result(house: House) -> None:
    end = await house.call(house.shelf.put(), {"hello": "world"})
    assert end.status is Status.OK
    assert json.loads(end.result) == {"hello": "world"}
    assert end.source is Source.FRESH
    assert end.phases.run == 2.0
    assert end.usage.cpu_ms == 1.0
    assert house.records == [end]


async def test_a_second_call_finds_the_sandbox_warm(house: House) -> None:
    key = house.shelf.put()
    first, second = await house.call(key), await house.call(key)
    assert second.source is Source.WARM
    assert first.sandbox == second.sandbox


async def test_calls_leave_nothing_for_the_garbage_collector(house: House) -> None:
    """However many come, it need not run: what a call was made of goes with its end."""
    key = house.shelf.put()
    events = [{"n": 1}, {"do": "raise", "type": "KeyError", "message": "x"}, {"do": "print", "stdout": "o"}]
    for event in events:
        await house.call(key, event)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for event in events * 10:
            await house.call(key, event)
        await asyncio.gather(*(house.call(key, n) for n in range(20)))
        gc.collect()
        left = {type(one) for one in gc.garbage if type(one).__module__.startswith("stoker")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == set()


async def test_reuse_none_never_meets_a_used_sandbox(house: House) -> None:
    key = house.shelf.put(reuse=Reuse.NONE)
    first, second = await house.call(key), await house.call(key)
    assert second.source is Source.FRESH
    assert first.sandbox != second.sandbox


async def test_what_the_function_says_of_reuse_outweighs_the_door(house: House) -> None:
    key = house.shelf.put(reuse=Reuse.PROCESS)
    await house.call(key, reuse=Reuse.NONE)
    assert (await house.call(key, reuse=Reuse.NONE)).source is Source.WARM


async def test_calls_share_one_sandbox_in_mode_sandbox(house: House) -> None:
    key = house.shelf.put(reuse=Reuse.SANDBOX)
    ends = await asyncio.gather(*(house.call(key, {"n": n}) for n in range(20)))
    assert [json.loads(end.result)["n"] for end in ends] == list(range(20))
    assert {end.sandbox for end in ends} == {"hf_f__rest"}


async def test_the_runtime_is_told_the_id_and_the_time_left(house: House) -> None:
    end = await house.call(house.shelf.put(), {"do": "context"})
    told = json.loads(end.result)
    assert told["id"] == end.invocation
    assert 4000 < told["budget_ms"] <= 5000


async def test_code_that_is_not_here_yet_is_waited_for(house: House) -> None:
    house.shelf.put("late")
    version = house.shelf.here.pop("front/late")
    coming = house.shelf.to_come["front/late"] = asyncio.get_running_loop().create_future()
    _, settled = house.start("front/late", 1)
    coming.set_result(version)
    end = await settled
    assert end.status is Status.OK
    assert end.built


@pytest.mark.parametrize("reuse", [Reuse.PROCESS, Reuse.SANDBOX])
@pytest.mark.parametrize(
    ("event", "status", "type_", "message"),
    [
        ({"do": "raise", "type": "KeyError", "message": "'x'"}, Status.FUNCTION_ERROR, "KeyError", "'x'"),
        ({"do": "exit", "code": 3}, Status.CRASHED, "Exited", "exited with code 3"),
        ({"do": "exit", "code": 137}, Status.CRASHED, "Exited", "exited with code 137"),
        ({"do": "kill", "signal": 6}, Status.CRASHED, "Crashed", "killed by SIGABRT"),
        ({"do": "kill", "signal": 9}, Status.CRASHED, "Crashed", "killed by SIGKILL"),
        ({"do": "oom"}, Status.OUT_OF_MEMORY, "OutOfMemory", "more than its 128 MB"),
        ({"do": "liar"}, Status.CRASHED, "Crashed", "a frame of 4294967295 bytes"),
        ({"do": "garbage", "bytes": 102_400}, Status.CRASHED, "Crashed", "the runtime was ended"),
        ({"do": "close"}, Status.CRASHED, "Exited", "before it answered"),
    ],
)
async def test_every_bad_end_is_told_apart(
    house: House, reuse: Reuse, event: dict[str, Any], status: Status, type_: str, message: str
) -> None:
    key = house.shelf.put(reuse=reuse)
    end = await house.call(key, event)
    assert (end.status, end.error.type) == (status, type_)
    assert message in end.error.message
    assert (await house.call(key, 1)).status is Status.OK


@pytest.mark.parametrize("reuse", [Reuse.PROCESS, Reuse.SANDBOX])
@pytest.mark.parametrize(
    ("event", "limit", "exit_code", "signal"),
    [
        ({"do": "raise"}, None, None, None),
        ({"do": "raise", "errno": 28}, LimitHit.DISK, None, None),
        ({"do": "raise", "is_disk_full": True}, LimitHit.DISK, None, None),
        ({"do": "raise", "forks_refused": 2}, LimitHit.PIDS, None, None),
        ({"do": "raise", "oom_kills": 1}, LimitHit.MEMORY, None, None),
        ({"do": "exit", "code": 137}, None, 137, None),
        ({"do": "exit", "code": 1, "oom_kills": 1}, LimitHit.MEMORY, 1, None),
        ({"do": "kill", "signal": 9}, None, None, 9),
        ({"do": "kill", "signal": 25}, LimitHit.DISK, None, 25),
        ({"do": "kill", "signal": 64}, None, None, 64),
        ({"do": "oom"}, LimitHit.MEMORY, None, 9),
        ({"do": "hang"}, LimitHit.WALL_TIME, None, None),
        ({"do": "hang", "cpu_ms": 60_000}, LimitHit.CPU_TIME, None, None),
        ({"do": "flood"}, LimitHit.OUTPUT, None, None),
        ({"do": "big", "bytes": 1001}, LimitHit.RESULT, None, None),
    ],
)
async def test_every_end_tells_the_limit_that_was_met_and_how_the_process_ended(
    house: House,
    reuse: Reuse,
    event: dict[str, Any],
    limit: LimitHit | None,
    exit_code: int | None,
    signal: int | None,
) -> None:
    limits = Limits(timeout_s=0.5, cpu_s=30, output_bytes=100_000, result_bytes=1000)
    key = house.shelf.put(reuse=reuse, limits=limits)
    await house.call(key)
    end = await house.call(key, event)
    assert (end.limit, end.exit_code, end.signal) == (limit, exit_code, signal)
    assert house.records[-1] == end


async def test_a_call_ended_inside_for_its_processor_time_is_told_as_that(house: House) -> None:
    key = house.shelf.put(reuse=Reuse.SANDBOX, limits=Limits(cpu_s=0.5))
    ended = await house.call(key, {"do": "kill", "signal": 9, "spent_ms": 510})
    assert (ended.status, ended.limit, ended.usage.cpu_ms) == (Status.TIMED_OUT, LimitHit.CPU_TIME, 510)
    by_itself = await house.call(key, {"do": "kill", "signal": 9, "spent_ms": 490})
    assert (by_itself.status, by_itself.limit) == (Status.CRASHED, None)
    exited = await house.call(key, {"do": "exit", "code": 1, "spent_ms": 510})
    assert (exited.status, exited.exit_code) == (Status.CRASHED, 1)


async def test_processor_time_of_an_earlier_call_is_not_this_calls(house: House) -> None:
    key = house.shelf.put(limits=Limits(cpu_s=1))
    await house.call(key)
    for _ in range(3):
        end = await house.call(key, {"do": "sleep", "seconds": 0.06, "cpu_ms": 900})
        assert (end.status, end.usage.cpu_ms) == (Status.OK, 900)


async def test_every_outcome_tells_the_peak_of_memory(house: House) -> None:
    key = house.shelf.put()
    for event in (1, 2, {"do": "raise"}, {"do": "exit"}):
        assert (await house.call(key, event)).usage.memory_peak_bytes == 1024 * 1024


async def test_a_limit_met_beside_a_good_answer_is_told_too(house: House) -> None:
    end = await house.call(house.shelf.put(), {"do": "echo", "value": 1, "oom_kills": 1})
    assert (end.status, end.limit) == (Status.OK, LimitHit.MEMORY)


async def test_a_function_that_raised_keeps_its_warm_sandbox(house: House) -> None:
    key = house.shelf.put()
    await house.call(key, {"do": "raise"})
    assert (await house.call(key)).source is Source.WARM


async def test_a_function_that_hangs_is_ended_at_its_limit_and_its_sandbox_is_not_used_again(
    house: House,
) -> None:
    key = house.shelf.put(limits=Limits(timeout_s=0.1))
    end = await house.call(key, {"do": "hang"})
    assert end.status is Status.TIMED_OUT
    assert "within its limit of 0.1 s" in end.error.message
    assert (await house.call(key)).source is Source.FRESH


async def test_a_timeout_in_a_shared_sandbox_leaves_its_other_calls_alone(house: House) -> None:
    key = house.shelf.put(reuse=Reuse.SANDBOX, limits=Limits(timeout_s=0.3))
    await house.call(key)
    hanging, sleeping = (
        house.start(key, {"do": "hang"})[1],
        house.start(key, {"do": "sleep", "seconds": 0.2})[1],
    )
    assert (await sleeping).status is Status.OK
    assert (await hanging).status is Status.TIMED_OUT


async def test_a_flood_of_output_ends_the_call_and_keeps_its_first_bytes(house: House) -> None:
    key = house.shelf.put(limits=Limits(timeout_s=10, log_bytes=1000, output_bytes=1_000_000))
    end = await house.call(key, {"do": "flood"})
    assert end.status is Status.OUTPUT_TOO_LARGE
    assert len(end.logs.stdout) == 1000
    assert end.logs.stdout_cut


@pytest.mark.parametrize("reuse", [Reuse.PROCESS, Reuse.SANDBOX])
async def test_each_call_gets_its_own_output(house: House, reuse: Reuse) -> None:
    key = house.shelf.put(reuse=reuse)
    for text in ("one\n", "two\n", ""):
        end = await house.call(key, {"do": "print", "stdout": text, "stderr": text.upper()})
        assert (end.logs.stdout, end.logs.stderr) == (text.encode(), text.upper().encode())
        assert not end.logs.stdout_cut


async def test_a_result_too_large_is_its_own_status(house: House) -> None:
    key = house.shelf.put(limits=Limits(result_bytes=1000))
    assert (await house.call(key, {"do": "big", "bytes": 1000})).status is Status.OK
    assert (await house.call(key, {"do": "big", "bytes": 1001})).status is Status.OUTPUT_TOO_LARGE


async def test_a_function_that_cannot_be_loaded_fails_with_the_languages_words(house: House) -> None:
    end = await house.call(house.shelf.put(handler="fake.refuse"))
    assert end.status is Status.FUNCTION_ERROR
    assert end.error.type == "ImportFailed"
    assert "No module named 'refused'" in end.error.message


async def test_a_function_whose_runtime_ends_at_once_has_crashed(house: House) -> None:
    key = house.shelf.put(handler="fake.exit")
    end = await house.call(key)
    assert end.status is Status.CRASHED
    assert "exited with code 1" in end.error.message


async def test_a_client_that_leaves_ends_its_call_and_the_sandbox(house: House) -> None:
    key = house.shelf.put()
    call, settled = house.start(key, {"do": "hang"})
    while house.pool.snapshot().busy == 0:
        await asyncio.sleep(0)
    call.leave()
    assert (await settled).status is Status.CANCELLED
    call.leave()
    assert (await house.call(key)).source is Source.FRESH


async def test_a_client_that_leaves_while_the_code_is_loaded_ends_its_call(house: House) -> None:
    key = house.shelf.put(handler="fake.slow", limits=Limits(timeout_s=600))
    call, settled = house.start(key, {"do": "hang"})
    while house.pool.snapshot().busy == 0:
        await asyncio.sleep(0)
    call.leave()
    async with asyncio.timeout(10):
        assert (await settled).status is Status.CANCELLED


async def test_a_client_that_leaves_while_waiting_gives_everything_back(house: House) -> None:
    coming = house.shelf.to_come["front/late"] = asyncio.get_running_loop().create_future()
    call, settled = house.start("front/late")
    call.leave()
    end = await settled
    assert (end.status, end.source, end.sandbox) == (Status.CANCELLED, Source.FRESH, "")
    house.shelf.put("late")
    coming.set_result(house.shelf.here["front/late"])


async def test_a_caller_whose_deadline_passes_in_line_is_told_so(house: House) -> None:
    key = house.shelf.put(max_concurrency=1)
    loop = asyncio.get_running_loop()
    call, first = house.start(key, {"do": "hang"})
    end = await house.call(key, deadline=loop.time() + 0.1)
    assert isinstance(end, Impatient)
    call.leave()
    await first


async def test_a_sandbox_that_cannot_be_made_is_the_nodes_failure(house: House) -> None:
    end = await house.call(house.shelf.put(version="refuse"))
    assert isinstance(end, SandboxFailed)
    assert "No such file" in end.message


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sandbox": "gvisor"}, NodeError, "no 'gvisor' in the sandboxes of this node; there is fake"),
        ({"version": "9"}, Unsupported, "no runtime 'fake-9' on this node; there is"),
        ({"limits": Limits(memory_mb=2000)}, Unsupported, "needs 2000 MB"),
    ],
)
async def test_what_this_node_cannot_do_is_refused_by_name(
    house: House, changes: dict[str, Any], error: type[NodeError], message: str
) -> None:
    end = await house.call(house.shelf.put(**changes))
    assert isinstance(end, error)
    assert message in end.message


async def test_unknown_functions_and_large_events_are_refused_at_the_door(house: House) -> None:
    assert isinstance(await house.call("front/none"), NoSuchFunction)
    end = await house.call(house.shelf.put(), b"x" * 100_001)
    assert isinstance(end, PayloadTooLarge)
    assert "100001 bytes" in end.message


async def test_a_draining_node_finishes_what_is_inside_and_takes_nothing_new(house: House) -> None:
    key = house.shelf.put()
    _, inside = house.start(key, {"do": "sleep", "seconds": 0.05})
    house.gate.drain()
    assert isinstance(await house.call(key), Draining)
    await house.gate.drained()
    assert inside.result().status is Status.OK


async def test_a_thousand_at_once_are_answered_or_refused(house: House) -> None:
    keys = [house.shelf.put(f"f{n}") for n in range(4)]
    ends = await asyncio.gather(*(house.call(keys[n % 4], {"n": n}) for n in range(1000)))
    answered = [end for end in ends if isinstance(end, Outcome)]
    assert 45 <= len(answered) <= 50, "the last places are for functions that come new"
    assert all(isinstance(end, TooBusy) for end in ends if end not in answered)
    assert all(json.loads(end.result) == {"n": n} for n, end in enumerate(ends) if isinstance(end, Outcome))


async def test_short_calls_queue_in_one_sandbox_and_are_answered_in_order(house: House) -> None:
    key = house.shelf.put(version="short")
    await house.call(key)
    await house.call(key)
    ends = await asyncio.gather(*(house.call(key, {"n": n}) for n in range(40)))
    assert [json.loads(end.result)["n"] for end in ends] == list(range(40))
    assert len({end.sandbox for end in ends}) == 1


async def test_calls_queued_behind_one_that_hangs_run_elsewhere_once(house: House) -> None:
    key = house.shelf.put(version="short", limits=Limits(timeout_s=1))
    await house.call(key)
    await house.call(key)
    _, hanging = house.start(key, {"do": "hang"})
    ends = await asyncio.gather(*(house.call(key, {"n": n}) for n in range(10)))
    assert [json.loads(end.result)["n"] for end in ends] == list(range(10))
    assert not hanging.done()
    end = await hanging
    assert end.status is Status.TIMED_OUT
    assert end.sandbox not in {other.sandbox for other in ends}


async def test_a_caller_that_leaves_a_queue_harms_nobody_in_it(house: House) -> None:
    key = house.shelf.put(version="short")
    await house.call(key)
    await house.call(key)
    held = house.start(key, {"do": "hold", "key": "first"})[1]
    leaver, left = house.start(key, {"n": 1})
    last = house.start(key, {"n": 2})[1]
    leaver.leave()
    while not house.backend.release("first"):
        await asyncio.sleep(0)
    assert [(await end).status for end in (held, left, last)] == [Status.OK, Status.CANCELLED, Status.OK]


async def test_retiring_a_version_ends_its_sandboxes(house: House) -> None:
    key = house.shelf.put()
    await house.call(key)
    house.pool.retire("f-1")
    assert (await house.call(key)).source is Source.FRESH


async def test_clearing_a_catalog_waits_until_its_idle_sandboxes_are_gone(house: House) -> None:
    await house.call(house.shelf.put())
    await house.pool.clear("front")
    assert house.pool.snapshot().committed_mb == 0


async def test_prewarmed_sandboxes_are_taken_and_replaced(house: House) -> None:
    key = house.shelf.put(reuse=Reuse.NONE)
    house.pool.set_prewarm(1, 2)
    await house.call(key)
    while house.pool.snapshot().idle < 2:
        await asyncio.sleep(0)
    assert (await house.call(key)).source is Source.POOLED
    while house.pool.snapshot().idle < 2:
        await asyncio.sleep(0)
