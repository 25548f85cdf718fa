"""What every backend promises in `stoker.sandboxes.contract`, asked of each that has a folder."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from contracts.conftest import MISSING, Invite, open_descriptors
from contracts.guests import PUPPET, invite
from stoker.errors import SandboxFailed
from stoker.sandboxes.contract import Backend, Launch, SandboxSpec
from stoker.types import Limits


def spec(id: str, launch: Launch) -> SandboxSpec:
    return SandboxSpec(id=id, launch=launch, limits=Limits(), code=PUPPET)


async def test_bytes_come_back(guest_of: Invite) -> None:
    guest = await guest_of()
    answer = await guest.call({"a": ["ü", None]})
    assert answer.value == {"a": ["ü", None]}
    assert await guest.loading is None


async def test_what_is_written_arrives_on_its_own_stream(guest_of: Invite) -> None:
    guest = await guest_of()
    await guest.call({"do": "print", "stdout": "out\n", "stderr": "err\n"})
    await guest.settle_output()
    assert (bytes(guest.stdout), bytes(guest.stderr)) == (b"out\n", b"err\n")


async def test_two_at_once_answer_each_for_itself(guest_of: Invite) -> None:
    first, second = await guest_of(), await guest_of()
    calls = [
        (guest.start([number, name]), guest)
        for number in range(20)
        for guest, name in ((first, 1), (second, 2))
    ]
    answers = [await guest.end(call) for call, guest in calls]
    assert [answer.value for answer in answers] == [[n, name] for n in range(20) for name in (1, 2)]


async def test_a_command_that_cannot_start_is_said_or_ends_at_once(backend: Backend) -> None:
    try:
        sandbox = await backend.create(spec("missing", MISSING))
    except SandboxFailed as failure:
        assert "/no/such/program" in failure.message or "missing-1" in failure.message
        return
    ending = await sandbox.ended
    assert ending.exit_code or ending.signal
    await sandbox.destroy()


async def test_the_next_one_starts_after_one_that_could_not(backend: Backend, guest_of: Invite) -> None:
    for number in range(3):
        try:
            await (await backend.create(spec(f"missing{number}", MISSING))).destroy()
        except SandboxFailed:
            continue
    assert (await (await guest_of()).call([1])).value == [1]


async def test_an_exit_is_told_with_its_code(guest_of: Invite) -> None:
    guest = await guest_of()
    answer = await guest.call({"do": "exit", "code": 3})
    assert answer.ending is not None
    assert (answer.ending.exit_code, answer.ending.signal) == (3, None)
    assert not answer.ending.destroyed
    assert not answer.ending.out_of_memory


@pytest.mark.parametrize("code", [124, 137, 255])
async def test_an_exit_is_not_mistaken_for_a_kill(guest_of: Invite, code: int) -> None:
    answer = await (await guest_of()).call({"do": "exit", "code": code})
    assert answer.ending is not None
    assert (answer.ending.exit_code, answer.ending.signal) == (code, None)
    assert not answer.ending.out_of_memory


async def test_an_end_while_loading_is_told_with_its_code(guest_of: Invite) -> None:
    guest = await guest_of(handler="fake.refuse")
    error = await guest.loading
    assert error is not None
    assert (await guest.sandbox.ended).exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_signal_is_told_with_its_number(guest_of: Invite, number: int) -> None:
    answer = await (await guest_of()).call({"do": "kill", "signal": int(number)})
    assert answer.ending is not None
    assert (answer.ending.exit_code, answer.ending.signal) == (None, number)
    assert not answer.ending.out_of_memory


async def test_one_out_of_memory_is_told_as_that(backend: Backend, guest_of: Invite) -> None:
    if not backend.abilities.limits_memory:
        pytest.skip(f"{backend.name} does not limit memory here")
    guest, other = await guest_of(limits=Limits(memory_mb=64)), await guest_of()
    answer = await guest.call({"do": "oom"})
    assert answer.ending is not None
    assert answer.ending.out_of_memory
    assert (await other.call([1])).value == [1]
    assert other.sandbox.hits().oom_kills == 0


async def test_one_that_never_answers_is_destroyed_all_the_same(guest_of: Invite) -> None:
    guest = await guest_of()
    guest.start({"do": "hang"})
    await guest.loading
    await guest.leave()
    assert guest.sandbox.ended.done()


async def test_one_that_floods_is_destroyed_all_the_same(guest_of: Invite) -> None:
    guest = await guest_of()
    guest.start({"do": "flood"})
    while guest.stdout_bytes < 1_000_000:
        await asyncio.sleep(0)
    await guest.leave()
    assert guest.sandbox.ended.done()


async def test_the_end_of_the_stream_ends_the_program(guest_of: Invite) -> None:
    guest = await guest_of()
    await guest.call()
    guest.session.close()
    assert (await guest.sandbox.ended).exit_code == 0


async def test_destroying_twice_is_destroying_once(guest_of: Invite) -> None:
    guest = await guest_of()
    await guest.call()
    await asyncio.gather(guest.leave(), guest.leave())
    await guest.sandbox.destroy()
    assert guest.sandbox.ended.result().destroyed


async def test_one_that_has_ended_keeps_its_ending_when_it_is_destroyed(guest_of: Invite) -> None:
    guest = await guest_of()
    await guest.call({"do": "exit", "code": 7})
    await guest.leave()
    assert (guest.sandbox.ended.result().exit_code, guest.sandbox.ended.result().destroyed) == (7, False)


async def test_one_can_be_destroyed_while_its_program_starts(backend: Backend, launch: Launch) -> None:
    sandbox = await backend.create(spec("early", launch))
    await sandbox.destroy()
    assert sandbox.ended.result().destroyed


async def test_a_start_can_be_cancelled_at_every_moment(backend: Backend, launch: Launch) -> None:
    await (await backend.create(spec("first", launch))).destroy()  # what is kept from now on is there
    before = open_descriptors()
    has_been_cancelled = True
    turns = 0
    while has_been_cancelled and turns < 40:
        has_been_cancelled = await cancel_after(turns, backend, spec(f"turn{turns}", launch))
        turns += 1
    assert turns > 1 or backend.name == "fake"
    assert open_descriptors() <= before


async def cancel_after(turns: int, backend: Backend, wanted: SandboxSpec) -> bool:
    """Whether the start was still under way after that many turns of the loop."""
    task = asyncio.create_task(backend.create(wanted))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        sandbox = await task
    except asyncio.CancelledError:
        return True
    await sandbox.destroy()
    return False


async def test_a_destruction_can_be_cancelled_at_every_moment(backend: Backend, launch: Launch) -> None:
    for turns in range(8):
        guest = await invite(backend, f"turn{turns}", launch)
        await guest.greeting
        task = asyncio.create_task(guest.leave())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await guest.leave()
        assert guest.sandbox.ended.result().destroyed


async def test_closing_destroys_what_is_alive(backend: Backend, launch: Launch) -> None:
    guests = [await invite(backend, f"alive{number}", launch) for number in range(3)]
    for guest in guests:
        guest.load("main.lambda_handler")
        guest.start({"do": "hang"})
    await backend.close()
    for guest in guests:
        assert guest.sandbox.ended.done()
        await guest.leave()


async def test_many_come_and_go_and_nothing_grows(backend: Backend, launch: Launch) -> None:
    async def come_and_go(id: str) -> None:
        guest = await invite(backend, id, launch)
        guest.load("main.lambda_handler")
        assert (await guest.call([id])).value == [id]
        await guest.leave()

    await come_and_go("first")
    before = open_descriptors()
    for round_ in range(4):
        await asyncio.gather(*(come_and_go(f"many{round_}-{number}") for number in range(5)))
    assert open_descriptors() <= before


async def test_use_is_measured_where_that_is_promised(backend: Backend, guest_of: Invite) -> None:
    if not backend.abilities.measures:
        pytest.skip(f"{backend.name} does not measure here")
    guest = await guest_of()
    await guest.call()
    alive = guest.sandbox.usage()
    await guest.leave()
    ended = guest.sandbox.ended.result().usage
    for usage in (alive, ended):
        assert usage.cpu_ms is not None
        assert usage.cpu_ms > 0
        assert usage.memory_peak_bytes is not None
        assert usage.memory_peak_bytes > 0


async def test_every_state_can_be_printed(backend: Backend, guest_of: Invite) -> None:
    guest = await guest_of()
    said = [repr(guest.sandbox)]
    await guest.leave()
    said.append(repr(guest.sandbox))
    assert said[0] != said[1]
    assert guest.sandbox.id in said[0]
    assert repr(backend)


# What needs a real process, and so not the fake.


@pytest.fixture
def real(backend: Backend) -> None:
    if backend.name == "fake":
        pytest.skip("the fake sandbox has no process")


async def test_a_daemon_that_left_its_session_ends_with_the_sandbox(
    real: None, guest_of: Invite, home: Path
) -> None:
    guest = await guest_of()
    assert (await guest.call({"do": "daemon"})).value == "left"
    await guest.leave()  # that it is gone, `nothing_left` looks at


async def test_a_daemon_ends_with_a_program_that_ends_by_itself(real: None, guest_of: Invite) -> None:
    guest = await guest_of()
    assert (await guest.call({"do": "daemon"})).value == "left"
    assert (await guest.call({"do": "exit"})).ending is not None
    await guest.leave()


async def test_scratch_is_writable_and_gone_afterwards(real: None, guest_of: Invite, home: Path) -> None:
    first = await guest_of()
    assert (await first.call({"do": "write", "name": "trace"})).error is None
    await first.leave()
    second = await guest_of()
    path = Path((await second.call({"do": "write", "name": "other"})).value)
    await second.leave()
    assert not path.exists() or not path.is_relative_to(home)
    assert list(home.rglob("trace")) == []


async def test_a_program_that_is_started_inherits_nothing_but_its_streams(
    real: None, guest_of: Invite
) -> None:
    opened = (await (await guest_of()).call({"do": "descriptors"})).value
    assert not [each for each in opened if "socket" in each], opened
    assert sum("pipe" in each for each in opened) == 2, opened  # its stdout and stderr, not the permits


async def test_the_environment_is_what_was_asked_for(real: None, guest_of: Invite, launch: Launch) -> None:
    environment = (await (await guest_of(KEY="väl=ue")).call({"do": "environment"})).value
    added_by_interpreter = {"LC_CTYPE"}
    assert set(environment) - added_by_interpreter <= {*launch.environment, "KEY"}
    assert environment["KEY"] == "väl=ue"
