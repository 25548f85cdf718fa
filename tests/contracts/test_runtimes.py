"""What every runtime promises in `docs/wire.md`, on every backend with real processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from contracts.conftest import Invite
from contracts.guests import RESULT_BYTES, Answer, Guest
from stoker import plugins
from stoker.runtimes.contract import Runtime
from stoker.runtimes.wire import CALL, DATA_IN, HEADER, MORE
from stoker.sandboxes.contract import Backend
from stoker.types import MEBIBYTE, FunctionError, Limits

PATIENT = {"python": "main.patient_handler", "nodejs": "index.patient"}
FLOOD_BYTES = 100 * MEBIBYTE


# The fake runs no language.
REAL = [name for name in plugins.names("sandboxes") if name != "fake"]
pytestmark = pytest.mark.parametrize("unopened", REAL, indirect=True)


@pytest.fixture
async def guest(guest_of: Invite, runtime: Runtime) -> Guest:
    """One call after another in one process."""
    return await guest_of(runtime.default_handler)


@pytest.fixture
async def forking(guest_of: Invite, runtime: Runtime) -> Guest:
    """A process for each call."""
    # Every call of a language that cannot fork is a whole interpreter.
    return await guest_of(runtime.default_handler, mode="fork", limits=Limits(memory_mb=512, pids=256))


def error_of(answer: Answer) -> FunctionError:
    assert answer.error is not None, answer
    return answer.error


# The beginning


async def test_it_greets_before_it_is_asked_anything(guest_of: Invite) -> None:
    await (await guest_of(handler=None)).greeting


async def test_it_says_when_it_has_loaded(guest: Guest) -> None:
    assert await guest.loading is None


async def test_a_missing_file_is_told_with_those_there_are(guest_of: Invite, runtime: Runtime) -> None:
    guest = await guest_of("nothing." + runtime.default_handler.rpartition(".")[2])
    error = await guest.loading
    assert error is not None
    assert error.type == "NoSuchHandler"
    assert runtime.entry_file(runtime.default_handler) in error.message
    assert (await guest.sandbox.ended).exit_code == 1


async def test_a_missing_function_is_told_with_those_there_are(guest_of: Invite, runtime: Runtime) -> None:
    file, _, name = runtime.default_handler.rpartition(".")
    guest = await guest_of(f"{file}.nothing")
    error = await guest.loading
    assert error is not None
    assert (error.type, name in error.message) == ("NoSuchHandler", True)


async def test_a_syntax_error_is_told_with_its_place(
    guest_of: Invite, runtime: Runtime, folder: Path
) -> None:
    entry = runtime.entry_file(runtime.default_handler)
    (folder / entry).write_text("\n\n)(")
    guest = await guest_of(runtime.default_handler, code=folder)
    error = await guest.loading
    assert error is not None
    assert error.type == "ImportFailed"
    assert "SyntaxError" in error.message
    assert entry in error.message
    assert "3" in error.message
    assert str(folder) not in error.message + error.stack


async def test_a_missing_dependency_is_told_by_name(guest_of: Invite, runtime: Runtime, folder: Path) -> None:
    text = {"python": "import not_there_at_all", "nodejs": "require('not_there_at_all')"}[runtime.name]
    (folder / runtime.entry_file(runtime.default_handler)).write_text(text)
    guest = await guest_of(runtime.default_handler, code=folder)
    error = await guest.loading
    assert error is not None
    assert error.type == "ImportFailed"
    assert "not_there_at_all" in error.message
    assert str(folder) not in error.message + error.stack


# One call


@pytest.mark.parametrize(
    "event", [b"", b"[]", b"null", b'"\\ud83d\\ude00 \xc3\xbc"', b"1e3", b'{"a":{"b":[1,2.5]}}']
)
async def test_an_event_comes_back_as_it_went(guest: Guest, event: bytes) -> None:
    assert (await guest.call(event)).value == json.loads(event or b"{}")


@pytest.mark.parametrize("event", [b"{", b"not json", b"\xff\xfe", b'{"a":NaN}', b"[" * 100_000, b" "])
async def test_an_event_that_is_not_json_is_refused_and_the_next_served(guest: Guest, event: bytes) -> None:
    assert error_of(await guest.call(event)).type == "BadEvent"
    assert (await guest.call([1])).value == [1]


async def test_three_megabytes_go_both_ways(guest: Guest) -> None:
    text = "ü" * (3 * MEBIBYTE // 2)
    assert (await guest.call([text])).value == [text]


async def test_a_result_of_exactly_the_limit_passes_and_one_byte_more_does_not(guest: Guest) -> None:
    assert len((await guest.call({"do": "big", "bytes": RESULT_BYTES})).value) == RESULT_BYTES - 2
    assert error_of(await guest.call({"do": "big", "bytes": RESULT_BYTES + 1})).type == "ResultTooLarge"
    assert (await guest.call([1])).value == [1]


@pytest.mark.parametrize("word", ["unserialisable", "infinity"])
async def test_a_result_that_is_not_json_is_refused_and_the_next_served(guest: Guest, word: str) -> None:
    assert error_of(await guest.call({"do": word})).type == "BadResult"
    assert (await guest.call([1])).value == [1]


async def test_it_raises_and_then_still_serves(guest: Guest) -> None:
    error = error_of(await guest.call({"do": "raise", "message": "märchen"}))
    assert error.type in ("ValueError", "RangeError")
    assert error.message == "märchen"
    assert "/app/function/" in error.stack
    assert "/inside/" not in error.stack
    assert "/opt/stoker/runtime" not in error.stack
    assert (await guest.call([1])).value == [1]


async def test_a_result_may_come_later(guest: Guest) -> None:
    assert (await guest.call({"do": "async"})).value == "later"


async def test_a_call_knows_its_context(guest: Guest) -> None:
    value = (await guest.call({"do": "context"}, budget_ms=5000)).value
    assert value["function"] == "puppet"
    assert len(bytes.fromhex(value["id"])) == 16
    assert 0 < value["left_ms"] <= 5000


async def test_relative_paths_start_in_the_code_folder(guest: Guest) -> None:
    assert "main.py" in (await guest.call({"do": "folder"})).value


async def test_a_call_uses_cpu_time_and_says_so(guest: Guest) -> None:
    assert (await guest.call({"do": "big", "bytes": 4 * MEBIBYTE})).cpu_ns > 0


# Many calls


async def test_a_thousand_calls_are_answered_in_order(guest: Guest) -> None:
    await guest.loading
    for number in range(1000):
        assert (await guest.call([number])).value == [number]


async def test_calls_that_wait_in_the_socket_are_answered_one_after_another(guest: Guest) -> None:
    calls = [guest.start({"do": "count"}) for _ in range(50)]
    assert [(await guest.end(call)).value for call in calls] == list(range(1, 51))


async def test_queued_calls_are_run_as_far_as_there_are_permits(guest: Guest) -> None:
    if guest.sandbox.permits is None or not await guest.greeting:
        pytest.skip("no calls queue here")
    kept, taken_back = guest.queue({"do": "count"}, permits=1), guest.queue({"do": "count"}, permits=0)
    guest.session.send_queued()
    assert (await guest.end(kept)).value == 1
    assert (await guest.call({"do": "count"})).value == 2
    assert not taken_back.end.done()


async def test_concurrent_calls_run_at_once_each_with_its_own_log(guest_of: Invite, runtime: Runtime) -> None:
    guest = await guest_of(PATIENT[runtime.name], concurrency=4)
    calls = [guest.start({"n": number, "seconds": 0.2, "fails": number == 2}) for number in range(4)]
    answers = [await guest.end(call) for call in calls]
    assert [answer.stdout for answer in answers] == [b"in %d\nout %d\n" % (n, n) for n in range(4)]
    assert error_of(answers[2]).message.strip("'") == "2"
    assert [answer.value["n"] for answer in answers if answer.error is None] == [0, 1, 3]


async def test_concurrent_calls_of_plain_handlers_are_all_answered(
    guest_of: Invite, runtime: Runtime
) -> None:
    guest = await guest_of(runtime.default_handler, concurrency=8)
    for _ in range(20):
        calls = [guest.start({"do": "print", "stdout": f"{number}\n"}) for number in range(8)]
        answers = [await guest.end(call) for call in calls]
        assert [answer.stdout for answer in answers] == [b"%d\n" % number for number in range(8)]


# The ends


async def test_it_exits_with_the_code_it_was_told(guest: Guest) -> None:
    answer = await guest.call({"do": "exit", "code": 3})
    assert answer.ending is not None
    assert answer.ending.exit_code == 3


async def test_it_aborts_by_signal(guest: Guest) -> None:
    answer = await guest.call({"do": "abort"})
    assert answer.ending is not None
    assert answer.ending.signal == 6


@pytest.mark.parametrize("word", ["hang", "spin"])
async def test_one_that_hangs_is_there_until_it_is_destroyed(guest: Guest, word: str) -> None:
    call = guest.start({"do": word})
    await guest.loading
    await guest.leave()
    assert not call.end.done()


async def test_a_log_of_100_megabytes_passes_and_the_answer_after_it(guest: Guest) -> None:
    assert (await guest.call({"do": "flood", "bytes": FLOOD_BYTES})).value == "dry"
    while guest.stdout_bytes < FLOOD_BYTES:
        await guest.settle_output()
    assert guest.stdout_bytes == FLOOD_BYTES


async def test_what_was_written_is_in_the_pipes_when_the_answer_comes(guest: Guest) -> None:
    await guest.call({"do": "print", "stdout": "no newline", "stderr": "ö\n"})
    await guest.settle_output()
    assert (bytes(guest.stdout), bytes(guest.stderr)) == (b"no newline", "ö\n".encode())


async def test_printed_frames_are_not_answers(guest: Guest) -> None:
    assert (await guest.call({"do": "frames"})).value == "the truth"
    await guest.settle_output()
    assert len(guest.stdout) == 27


@pytest.mark.parametrize("mode", ["process", "fork"])
async def test_a_call_that_comes_in_parts_is_joined(guest_of: Invite, runtime: Runtime, mode: str) -> None:
    guest = await guest_of(runtime.default_handler, mode=mode, limits=Limits(memory_mb=512, pids=256))
    whole = guest.expect()
    head = bytes(16) + (1000).to_bytes(4, "big")
    guest.say(CALL | MORE, head + b"[1,", whole.number)
    guest.say(DATA_IN | MORE, b"2,", whole.number)
    other = guest.start(["other"])
    guest.say(DATA_IN, b"3]", whole.number)
    assert (await guest.end(whole)).value == [1, 2, 3]
    assert (await guest.end(other)).value == ["other"]


async def test_how_the_bytes_of_calls_are_cut_makes_no_difference(guest: Guest) -> None:
    await guest.loading
    calls = [guest.expect() for _ in range(12)]
    said = b"".join(
        HEADER.pack(20 + len(event), CALL, call.number) + bytes(20) + event
        for call, event in ((call, b'["%d"]' % call.number) for call in calls)
    )
    for size in (1, 7, 3, 50, 2):
        piece, said = said[: size * 5], said[size * 5 :]
        for at in range(0, len(piece), size):
            guest.session._write(piece[at : at + size])
            await asyncio.sleep(0)
    guest.session._write(said)
    assert [(await guest.end(call)).value for call in calls] == [[str(call.number)] for call in calls]


async def test_a_frame_it_does_not_know_ends_it_with_78(guest: Guest) -> None:
    await guest.loading
    guest.say(0x33)
    assert (await guest.sandbox.ended).exit_code == 78


async def test_another_wire_version_ends_it_with_78(guest_of: Invite) -> None:
    guest = await guest_of(handler=None)
    guest.say(0x01, b'{"wire": 2}')
    assert (await guest.sandbox.ended).exit_code == 78


# A process for each call


async def test_each_call_has_a_process_of_its_own(forking: Guest) -> None:
    answers = [await forking.call({"do": "process"}) for _ in range(3)]
    assert len({answer.value for answer in answers}) == 3


async def test_what_one_call_changes_the_next_does_not_see(forking: Guest) -> None:
    assert [(await forking.call({"do": "count"})).value for _ in range(3)] == [1, 1, 1]


async def test_calls_draw_different_random_numbers(forking: Guest) -> None:
    first, second = [(await forking.call({"do": "random"})).value for _ in range(2)]
    assert not set(first) & set(second)


async def test_forked_calls_run_at_once_each_with_its_own_log(forking: Guest) -> None:
    await forking.loading
    calls = [forking.start({"do": "print", "stdout": f"out {n}", "stderr": f"err {n}"}) for n in range(5)]
    answers = [await forking.end(call) for call in calls]
    assert [answer.stdout for answer in answers] == [b"out %d" % n for n in range(5)]
    assert [answer.stderr for answer in answers] == [b"err %d" % n for n in range(5)]


async def test_a_slow_forked_call_does_not_hold_up_another(forking: Guest) -> None:
    slow = forking.start({"do": "hang"})
    assert (await forking.call([1])).value == [1]
    assert not slow.end.done()


async def test_what_a_forked_call_starts_writes_to_its_log(forking: Guest) -> None:
    answer = await forking.call({"do": "shout"})
    assert (answer.stdout, answer.stderr) == (b"loud\n", b"clear\n")


async def test_a_forked_call_that_raises_or_is_not_json_is_told_so(forking: Guest) -> None:
    assert error_of(await forking.call({"do": "raise", "message": "no"})).message == "no"
    assert error_of(await forking.call({"do": "infinity"})).type == "BadResult"
    assert error_of(await forking.call(b"{")).type == "BadEvent"
    assert (await forking.call({"do": "async"})).value == "later"


async def test_three_megabytes_go_both_ways_through_a_fork(forking: Guest) -> None:
    text = "x" * (3 * MEBIBYTE)
    assert (await forking.call([text])).value == [text]


@pytest.mark.parametrize(
    ("event", "code", "signal"),
    [
        ({"do": "exit", "code": 3}, 3, -1),
        ({"do": "exit"}, 0, -1),
        ({"do": "abort"}, -1, 6),
        ({"do": "kill"}, -1, 9),
    ],
)
async def test_a_forked_call_that_ends_is_told_and_the_next_served(
    forking: Guest, event: object, code: int, signal: int
) -> None:
    exited = (await forking.call(event)).exited
    assert exited is not None
    assert (exited.exit_code, exited.signal) == (code, signal)
    assert (await forking.call([1])).value == [1]


async def test_a_forked_call_out_of_memory_ends_alone(forking: Guest, backend: Backend) -> None:
    if not backend.abilities.limits_memory:
        pytest.skip(f"{backend.name} does not limit memory here")
    await forking.call()
    before = forking.sandbox.hits().oom_kills
    other = forking.start({"do": "hang"})
    exited = (await forking.call({"do": "oom"})).exited
    assert exited is not None
    assert exited.signal == 9
    assert forking.sandbox.hits().oom_kills > before
    assert not other.end.done()
    assert (await forking.call([1])).value == [1]


async def test_ends_and_answers_at_the_same_time_are_never_taken_for_each_other(forking: Guest) -> None:
    for _ in range(15):
        killed, exited, *echoed = await asyncio.gather(
            forking.call({"do": "kill"}),
            forking.call({"do": "exit", "code": 3}),
            *(forking.call({"do": "print", "stdout": "said\n"}) for _ in range(3)),
        )
        assert (killed.exited.signal, exited.exited.exit_code) == (9, 3)
        assert [(answer.result, answer.stdout) for answer in echoed] == [(b"null", b"said\n")] * 3


async def test_a_cancelled_forked_call_is_ended(forking: Guest) -> None:
    call = forking.start({"do": "hang"})
    pid = (await forking.call({"do": "process"})).value
    forking.session.cancel(call.number)
    assert (await forking.call({"do": "process"})).value != pid
    assert not call.end.done()


async def test_a_forked_flood_passes_and_the_answer_after_it(forking: Guest) -> None:
    call = forking.start({"do": "flood", "bytes": FLOOD_BYTES // 10})
    assert (await forking.end(call)).value == "dry"
    assert call.written_bytes == FLOOD_BYTES // 10


async def test_forked_printed_frames_are_not_answers(forking: Guest) -> None:
    answer = await forking.call({"do": "frames"})
    assert answer.value == "the truth"
    assert len(answer.stdout) == len(answer.stderr) == 27


async def test_a_daemon_of_a_forked_call_does_not_hold_up_its_answer(forking: Guest) -> None:
    assert (await forking.call({"do": "daemon"})).value == "left"
    assert (await forking.call([1])).value == [1]


async def test_a_function_that_cannot_load_says_so_in_mode_fork_too(
    guest_of: Invite, runtime: Runtime
) -> None:
    guest = await guest_of("nothing.nothing", mode="fork")
    error = await guest.loading
    assert error is not None
    assert error.type == "NoSuchHandler"
    assert (await guest.sandbox.ended).exit_code == 1


async def test_many_forked_calls_leave_nothing_behind(forking: Guest) -> None:
    await forking.call()
    for _ in range(4):
        answers = await asyncio.gather(*(forking.call([n]) for n in range(5)))
        assert [answer.value for answer in answers] == [[n] for n in range(5)]
