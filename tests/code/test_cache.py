"""The room as the node sees it: pins, flights, limits, restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

import pytest

from code_room import CONFIG, hello, zip_of
from stoker.errors import (
    BadCode,
    BadRequest,
    CodeUnavailable,
    Draining,
    NoSuchFunction,
)


def keys_of(room) -> set[str]:
    return {entry.key for entry in room.cache.snapshot().entries}


# Pins and flights


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
    third = await room.cache.fetch("front/W1")
    assert not third.built
    for each in (pin, again, third):
        each.release()
    assert room.bench.steps.__len__() == 2


async def test_two_who_ask_at_once_share_one_build(open_room, put):
    put("W1")
    room = await open_room()
    pins = await asyncio.gather(*(room.cache.fetch("front/W1") for _ in range(5)))
    assert [step for step, _ in room.bench.steps] == ["unpack", "prepare"]
    assert {pin.version.folder for pin in pins} == {pins[0].version.folder}
    assert room.cache.snapshot().entries[0].pins == 5
    for pin in pins:
        pin.release()
        pin.release()
    assert room.cache.snapshot().entries[0].pins == 0


async def test_a_failed_build_reaches_every_waiter_and_the_next_call_tries_again(open_room, put):
    put("W1", {"W1/config.json": CONFIG})
    room = await open_room()
    errors = await asyncio.gather(*(room.cache.fetch("front/W1") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, BadCode) for error in errors)
    assert "no main.py" in str(errors[0])
    put("W1")
    (await room.cache.fetch("front/W1")).release()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("front/W9", NoSuchFunction),
        ("front/../W1", BadRequest),
        ("front/", BadRequest),
        ("functions/nobody", NoSuchFunction),
        ("elsewhere/W1", NoSuchFunction),
        ("W1", NoSuchFunction),
        ("", NoSuchFunction),
    ],
)
async def test_a_key_that_names_nothing_is_refused(open_room, key, kind):
    room = await open_room()
    with pytest.raises(kind):
        await room.cache.fetch(key)


async def test_without_a_prefix_it_says_what_to_set(open_room):
    room = await open_room(function_url_prefix=None)
    with pytest.raises(CodeUnavailable, match="USER_FUNCTION_URL_PREFIX"):
        await room.cache.fetch("front/W1")
    with pytest.raises(CodeUnavailable, match="USER_FUNCTION_URL_PREFIX"):
        await room.cache.names("front")


async def test_the_names_of_a_catalog_are_those_of_its_list(open_room, packages):
    (packages / "lists.txt").write_text("W1\nW2\n")
    assert await (await open_room()).cache.names("front") == ["W1", "W2"]


async def test_a_room_that_closes_tells_whoever_waits(open_room, put):
    put("W1")
    room = await open_room()
    room.bench.gate = asyncio.Event()
    waiter = asyncio.ensure_future(room.cache.fetch("front/W1"))
    await room.bench.entered.wait()
    await room.cache.close()
    with pytest.raises(Draining):
        await waiter
    assert room.leftovers() == []


async def test_a_program_error_on_the_way_is_a_node_error_too(open_room, put, caplog):
    put("W1")
    room = await open_room()

    async def broken(*_: object) -> None:
        raise KeyError("oops")

    room.bench.run = broken
    with caplog.at_level(logging.CRITICAL), pytest.raises(CodeUnavailable, match="KeyError: 'oops'"):
        await room.cache.fetch("front/W1")


# Limits


def sized(name: str, kilobytes: int) -> dict[str, str | bytes]:
    return hello(name, data=os.urandom(kilobytes * 1024))


async def use(room, key: str) -> str:
    """One call's worth of a function; its revision."""
    pin = await room.cache.fetch(key)
    pin.release()
    return pin.version.function.revision


async def test_the_least_recently_used_goes_first(open_room, put):
    for name in "ABC":
        put(name, sized(name, 100))
    room = await open_room(code_size_limit_bytes=250 * 1024)
    await use(room, "front/A")
    oldest = await use(room, "front/B")
    await use(room, "front/A")
    await use(room, "front/C")
    assert keys_of(room) == {"front/A", "front/C"}
    assert room.retired == [oldest]
    assert room.cache.pin("front/B") is None
    await use(room, "front/B")
    assert keys_of(room) == {"front/C", "front/B"}
    assert room.cache.snapshot().size_bytes <= 250 * 1024


async def test_what_is_in_use_never_goes(open_room, put):
    for name in "ABC":
        put(name, sized(name, 100))
    room = await open_room(code_size_limit_bytes=1)
    pins = [await room.cache.fetch(f"front/{name}") for name in "ABC"]
    assert keys_of(room) == {"front/A", "front/B", "front/C"}
    pins[1].release()
    assert keys_of(room) == {"front/A", "front/C"}
    assert (pins[0].version.folder / "main.py").is_file()
    pins[0].release()
    pins[2].release()
    assert keys_of(room) == set()


async def test_a_limit_takes_effect_at_once_and_no_limit_none(open_room, put):
    for name in "ABC":
        put(name, sized(name, 100))
    room = await open_room()
    for name in "ABC":
        await use(room, f"front/{name}")
    assert room.cache.snapshot().limit_bytes == -1
    room.cache.set_limit(150 * 1024)
    assert keys_of(room) == {"front/C"}
    room.cache.set_limit(-1)
    await use(room, "front/A")
    assert keys_of(room) == {"front/A", "front/C"}
    room.cache.set_limit(0)
    assert keys_of(room) == set()


# Forgetting


async def test_what_is_forgotten_is_fetched_anew_and_the_old_stays_while_it_is_held(open_room, put):
    put("W1")
    room = await open_room()
    old = await room.cache.fetch("front/W1")
    put("W1", hello("W1", **{"new.txt": "x"}))
    room.cache.forget("front/W1")
    assert room.retired == [old.version.function.revision]
    assert room.cache.pin("front/W1") is None
    new = await room.cache.fetch("front/W1")
    assert new.built
    assert (new.version.folder / "new.txt").is_file()
    assert (old.version.folder / "main.py").is_file()
    old.release()
    await room.cache._trash.wait_empty()
    assert not old.version.folder.exists()
    new.release()


async def test_the_same_package_forgotten_while_held_is_built_beside_it(open_room, put):
    put("W1")
    room = await open_room()
    old = await room.cache.fetch("front/W1")
    room.cache.forget("front/W1")
    new = await room.cache.fetch("front/W1")
    assert new.built
    assert new.version.digest == old.version.digest
    assert new.version.folder != old.version.folder
    assert new.version.function.revision != old.version.function.revision
    old.release()
    new.release()


async def test_a_catalog_is_forgotten_as_a_whole(open_room, put):
    put("A")
    put("B")
    room = await open_room()
    await use(room, "front/A")
    await use(room, "front/B")
    room.cache.forget_catalog("functions")
    assert keys_of(room) == {"front/A", "front/B"}
    room.cache.forget_catalog("front")
    assert keys_of(room) == set()
    assert len(room.retired) == 2


async def test_what_is_forgotten_on_its_way_serves_those_who_waited_and_nobody_else(open_room, put):
    put("W1")
    room = await open_room()
    room.bench.gate = asyncio.Event()
    early = asyncio.ensure_future(room.cache.fetch("front/W1"))
    await room.bench.entered.wait()
    room.cache.forget("front/W1")
    put("W1", hello("W1", **{"new.txt": "x"}))
    late = asyncio.ensure_future(room.cache.fetch("front/W1"))
    room.bench.gate.set()
    first, second = await early, await late
    assert not (first.version.folder / "new.txt").exists()
    assert (second.version.folder / "new.txt").exists()
    current = room.cache.pin("front/W1")
    assert current.version is second.version
    for pin in (first, second, current):
        pin.release()
    assert [entry.is_current for entry in room.cache.snapshot().entries] == [True]


# Over a restart


async def test_finished_folders_are_adopted_after_a_restart(open_room, put):
    put("W1")
    room = await open_room()
    before = await room.cache.fetch("front/W1")
    before.release()
    room = await open_room()
    assert keys_of(room) == {"front/W1"}
    assert room.cache.pin("front/W1") is None  # its package may be another by now
    pin = await room.cache.fetch("front/W1")
    assert not pin.built
    assert pin.version == before.version
    assert room.bench.steps == []
    pin.release()


async def test_another_package_after_a_restart_is_built_and_the_old_goes(open_room, put):
    put("W1")
    await use(await open_room(), "front/W1")
    put("W1", hello("W1", **{"new.txt": "x"}))
    room = await open_room()
    pin = await room.cache.fetch("front/W1")
    assert pin.built and (pin.version.folder / "new.txt").is_file()
    pin.release()
    assert len(room.cache.snapshot().entries) == 1


async def test_a_source_that_is_away_after_a_restart_does_not_matter(open_room, put, packages, caplog):
    put("W1")
    await use(await open_room(), "front/W1")
    os.rename(packages, f"{packages}.away")
    room = await open_room(function_url_prefix="/nowhere/at/all/")
    with caplog.at_level(logging.WARNING):
        await use(room, "front/W1")
    assert "serving front/W1 as it was before" in caplog.text
    with pytest.raises(CodeUnavailable):
        await room.cache.fetch("front/W2")


@pytest.mark.parametrize("harm", ["manifest cut", "manifest gone", "code gone", "format of before"])
async def test_a_folder_that_is_not_whole_is_removed_at_the_start(open_room, put, home, harm):
    put("W1")
    room = await open_room()
    await use(room, "front/W1")
    folder = next((home / "code").iterdir())
    manifest = folder / "manifest.json"
    match harm:
        case "manifest cut":
            manifest.write_bytes(manifest.read_bytes()[:20])
        case "manifest gone":
            manifest.unlink()
        case "code gone":
            (folder / "code").rename(folder / "other")
        case "format of before":
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 0}))
    room = await open_room()
    assert keys_of(room) == set()
    await room.cache._trash.wait_empty()
    assert list((home / "code").iterdir()) == []
    assert (await room.cache.fetch("front/W1")).built


async def test_a_folder_that_lost_a_file_since_is_built_anew(open_room, put, home):
    put("W1")
    room = await open_room()
    await use(room, "front/W1")
    code = next((home / "code").iterdir()) / "code"
    code.chmod(0o755)
    (code / "main.py").unlink()
    room = await open_room()
    pin = await room.cache.fetch("front/W1")
    assert pin.built
    assert (pin.version.folder / "main.py").is_file()
    pin.release()


async def test_adopted_folders_count_and_go_by_the_limit(open_room, put):
    for name in "AB":
        put(name, sized(name, 100))
    room = await open_room()
    await use(room, "front/A")
    await use(room, "front/B")
    room = await open_room(code_size_limit_bytes=150 * 1024)
    assert keys_of(room) == {"front/B"}


async def test_what_strangers_left_in_the_homes_folders_is_removed(open_room, home: Path, put):
    put("W1")
    for place in ("code/x", "staging/y", "trash/z"):
        (home / place).mkdir(parents=True)
        (home / place / "file").write_bytes(zip_of({"a": "b"}))
    room = await open_room()
    await room.cache._trash.wait_empty()
    assert room.leftovers() == []
    assert list((home / "code").iterdir()) == []
    await use(room, "front/W1")


# Random histories


async def test_whatever_happens_pins_hold_and_bytes_add_up(open_room, put, home):
    """Fetches, releases, forgettings and limits in any order: what is held is whole, what is gone is gone."""
    from random import Random

    random = Random(7)
    for name in "ABCD":
        put(name, sized(name, 50 + 10 * ord(name) % 40))
    room = await open_room()
    held = []
    for _ in range(60):
        action = random.randrange(5)
        name = random.choice("ABCD")
        if action < 2:
            held.append(await room.cache.fetch(f"front/{name}"))
        elif action == 2 and held:
            held.pop(random.randrange(len(held))).release()
        elif action == 3:
            room.cache.forget(f"front/{name}")
        else:
            room.cache.set_limit(random.choice([-1, 0, 100_000, 200_000]))
        entries = room.cache.snapshot().entries
        assert sum(entry.pins for entry in entries) == len(held)
        assert sum(entry.size_bytes for entry in entries) == room.cache.snapshot().size_bytes
        assert all((pin.version.folder / "main.py").is_file() for pin in held)
    for pin in held:
        pin.release()
    room.cache.set_limit(0)
    await room.cache._trash.wait_empty()
    assert list((home / "code").iterdir()) == []
    assert room.leftovers() == []
