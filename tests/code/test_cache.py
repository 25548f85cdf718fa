"""The room as the node sees it: pins, flights, limits, restarts."""

from __future__ import annotations

import asyncio

from stoker.errors import BadCode


async def test_a_function_is_fetched_built_and_then_pinned_at_once(open_room, put):
    put("W1")
    room = await open_room()
    assert room.cache.pin("front/W1") is None
    pin = await room.cache.fetch("front/W1")
    assert pin.built
    assert pin.version.function.runtime == "python"
    assert (pin.version.folder / "main.py").is_file()
    again = room.cache.pin("front/W1")
    assert again is not None and not again.built
    assert again.version is pin.version
    pin.release()
    again.release()
    assert room.leftovers() == [] or await room.cache.close() is None


async def test_two_who_ask_at_once_share_one_build(open_room, put):
    put("W1")
    room = await open_room()
    pins = await asyncio.gather(*(room.cache.fetch("front/W1") for _ in range(5)))
    assert [step for step, _ in room.bench.steps] == ["unpack", "prepare"]
    assert {pin.version.folder for pin in pins} == {pins[0].version.folder}
    for pin in pins:
        pin.release()


async def test_a_failed_build_reaches_every_waiter_and_the_next_call_tries_again(open_room, put):
    put("W1", {"W1/config.json": '{"environment": "python3"}'})
    room = await open_room()
    errors = await asyncio.gather(*(room.cache.fetch("front/W1") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, BadCode) for error in errors)
    assert "no main.py" in str(errors[0])
    put("W1")
    (await room.cache.fetch("front/W1")).release()
