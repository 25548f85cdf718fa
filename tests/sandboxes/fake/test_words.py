"""The fake does what its events, handlers and programs say: what other tests build upon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from contracts.guests import Guest, invite
from stoker.errors import SandboxFailed
from stoker.sandboxes.contract import Launch
from stoker.sandboxes.fake import Backend, Settings
from stoker.types import FunctionError

MILLISECOND = 0.001


@pytest.fixture
async def fake() -> AsyncIterator[Backend]:
    backend = Backend(Settings(start_s=MILLISECOND, load_s=MILLISECOND), ())
    await backend.open()
    yield backend
    await backend.close()


@pytest.fixture(params=["process", "fork"])
async def guest(request: pytest.FixtureRequest, fake: Backend) -> AsyncIterator[Guest]:
    guest = await invite(fake, "guest", launch())
    guest.load("main.handler", request.param)
    yield guest
    await guest.leave()


def launch(program: str = "fake") -> Launch:
    return Launch(name="fake-1.0.0", argv=(program,))


@pytest.mark.parametrize("event", [b"", b"[1]", b'{"a":"\xc3\xbc"}', b'{"do":"echo","value":[1]}'])
async def test_it_echoes_any_event(guest: Guest, event: bytes) -> None:
    assert (await guest.call(event)).value == {b"": {}, b"[1]": [1], b'{"a":"\xc3\xbc"}': {"a": "ü"}}.get(
        event, [1]
    )


async def test_it_tells_what_a_call_came_with(guest: Guest) -> None:
    value = (await guest.call({"do": "context"}, budget_ms=77)).value
    assert (value["budget_ms"], value["function"], len(value["id"])) == (77, "puppet", 32)


async def test_it_raises_what_it_is_told(guest: Guest) -> None:
    error = (await guest.call({"do": "raise", "type": "Own", "message": "so"})).error
    assert error == FunctionError("Own", "so", "Own: so\n")
    assert (await guest.call([1])).value == [1]


async def test_it_does_not_do_what_it_does_not_know(guest: Guest) -> None:
    error = (await guest.call({"do": "magic"})).error
    assert error is not None
    assert error.message == "the fake cannot do 'magic'"


async def test_it_refuses_events_that_are_not_json_and_results_that_are_too_large(guest: Guest) -> None:
    errors = [(await guest.call(event)).error for event in (b"{", {"do": "big", "bytes": 7 << 20})]
    assert [error.type for error in errors if error] == ["BadEvent", "ResultTooLarge"]


async def test_it_prints_where_the_mode_says(guest: Guest) -> None:
    answer = await guest.call({"do": "print", "stdout": "out", "stderr": "err"})
    await guest.settle_output()
    assert answer.stdout + bytes(guest.stdout) == b"out"
    assert answer.stderr + bytes(guest.stderr) == b"err"


async def test_it_floods_until_it_is_destroyed(guest: Guest) -> None:
    call = guest.start({"do": "flood"})
    while guest.stdout_bytes + call.written_bytes < 1_000_000:
        await asyncio.sleep(0)
    assert not call.end.done()


async def test_it_holds_a_call_until_it_is_released(guest: Guest, fake: Backend) -> None:
    held = guest.start({"do": "hold", "key": "a"})
    assert (await guest.call({"do": "sleep", "seconds": MILLISECOND})).value is None
    assert fake.release("b") == 0
    assert fake.release("a") == 1
    assert (await guest.end(held)).value is None


async def test_hanging_calls_can_be_cancelled_where_they_have_a_process(guest: Guest) -> None:
    call = guest.start({"do": "hang"})
    assert (await guest.call([1])).value == [1]
    guest.session.cancel(call.number)
    assert (await guest.call([2])).value == [2]


@pytest.mark.parametrize(
    ("event", "code", "signal", "oom_kills"),
    [
        ({"do": "exit", "code": 3}, 3, None, 0),
        ({"do": "kill", "signal": 6}, None, 6, 0),
        ({"do": "oom"}, None, 9, 1),
    ],
)
async def test_it_ends_as_it_is_told(
    guest: Guest, event: object, code: int | None, signal: int | None, oom_kills: int
) -> None:
    answer = await guest.call(event)
    if answer.exited is not None:
        ends = (answer.exited.exit_code, answer.exited.signal)
        assert ends == (-1 if code is None else code, -1 if signal is None else signal)
        assert (await guest.call([1])).value == [1]
    else:
        assert answer.ending is not None
        assert (answer.ending.exit_code, answer.ending.signal) == (code, signal)
        assert answer.ending.out_of_memory == bool(oom_kills)
    assert guest.sandbox.hits().oom_kills == oom_kills


@pytest.mark.parametrize("word", ["garbage", "liar"])
async def test_it_lies_as_it_is_told(guest: Guest, word: str) -> None:
    guest.start({"do": word, "bytes": 1 << 17})
    assert await guest.over


async def test_it_can_close_the_channel_and_live(guest: Guest) -> None:
    guest.start({"do": "close"})
    assert await guest.over == ""
    assert not guest.sandbox.ended.done() or guest.sandbox.ended.result().exit_code == 0


@pytest.mark.parametrize("program", ["fake.refuse", "/no/such/program"])
async def test_a_program_can_be_refused(fake: Backend, program: str) -> None:
    with pytest.raises(SandboxFailed, match="No such file"):
        await invite(fake, "guest", launch(program))


async def test_a_program_can_end_before_a_word(fake: Backend) -> None:
    guest = await invite(fake, "guest", launch("fake.exit"))
    assert (await guest.sandbox.ended).exit_code == 1
    assert not guest.greeting.done()
    await guest.leave()


async def test_a_program_can_be_slow_or_silent() -> None:
    fake, loop = Backend(Settings(start_s=50 * MILLISECOND), ()), asyncio.get_running_loop()
    await fake.open()
    began = loop.time()
    slow, silent = [await invite(fake, name, launch(f"fake.{name}")) for name in ("slow", "silent")]
    await slow.greeting
    assert loop.time() - began > 40 * MILLISECOND  # a loop's timers are a little early at times
    assert not silent.greeting.done()
    await slow.leave()
    await silent.leave()
    await fake.close()


@pytest.mark.parametrize(("handler", "code"), [("fake.refuse", 1), ("fake.exit", 1)])
async def test_a_handler_can_end_it(fake: Backend, handler: str, code: int) -> None:
    guest = await invite(fake, "guest", launch())
    guest.load(handler)
    assert (await guest.sandbox.ended).exit_code == code
    if handler == "fake.refuse":
        error = await guest.loading
        assert error is not None
        assert error.type == "ImportFailed"
    await guest.leave()


async def test_a_handler_can_be_slow_or_never_load(fake: Backend) -> None:
    slow, never = [await invite(fake, name, launch()) for name in ("slow", "never")]
    slow.load("fake.slow")
    never.load("fake.never")
    assert await slow.loading is None
    assert not never.loading.done()
    await slow.leave()
    await never.leave()
