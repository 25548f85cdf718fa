"""Sandboxes that wait for a function: taken at once, walled like any other, never too many."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import leaks
from sandboxes.lean.conftest import Make
from sandboxes.lean.guests import (
    EXECUTED,
    FORKED,
    Raised,
    answer,
    children_of,
    frame,
    hello,
    helper_pid,
    is_init,
    run,
    user_of,
)
from stoker.sandboxes.contract import Launch, Sandbox, SandboxSpec
from stoker.sandboxes.lean import Backend
from stoker.sandboxes.lean.packets import MAX_OPENING
from stoker.sandboxes.lean.privileged.sandbox import READY_USERS
from stoker.types import Limits

BOTH = pytest.mark.parametrize("launch", [FORKED, EXECUTED], ids=lambda launch: launch.name)


def was_spare(sandbox: Sandbox) -> bool:
    return "Spare-" in repr(sandbox.traces)  # type: ignore[attr-defined]


def waiting(backend: Backend) -> list[int]:
    """The first processes of spares that have come as far as they come by themselves."""
    given = {sandbox.traces.pid for sandbox in backend._sandboxes.values()}
    return [pid for pid in children_of(helper_pid(backend)) if pid not in given and _is_waiting(pid)]


def _is_waiting(pid: int) -> bool:
    try:
        return is_init(pid) and len(children_of(pid)) == 1
    except OSError:
        return False


async def wait_for_spares(backend: Backend, number: int = 2) -> list[int]:
    while len(found := waiting(backend)) < number:
        await asyncio.to_thread(threading.Event().wait, 0.005)
    return found


@BOTH
async def test_whoever_comes_second_gets_a_spare(make: Make, lean: Backend, launch: Launch) -> None:
    first = await make(launch)
    await wait_for_spares(lean)
    second = await make(launch)
    assert (was_spare(first), was_spare(second)) == (False, True)
    users = [await user_of(sandbox) for sandbox in (first, second)]
    assert users[0] != users[1] or os.geteuid() != 0


@BOTH
async def test_a_spare_sees_the_code_it_is_given_and_no_other(
    make: Make, lean: Backend, folder: Path, launch: Launch
) -> None:
    await make(launch)
    await wait_for_spares(lean)
    source = "import os; answer = os.listdir('/app/function')"
    for name in ("one.py", "other.py"):
        code = folder / name.removesuffix(".py")
        code.mkdir()
        (code / name).touch()
        sandbox = await make(launch, code=code)
        assert was_spare(sandbox)
        assert await run(sandbox, source) == [name]
        with pytest.raises(Raised, match="Read-only file system"):
            await run(sandbox, "open('/app/function/new', 'w')")


@pytest.mark.parametrize("is_spare", [False, True])
async def test_what_the_node_says_first_is_said_by_the_helper_once_the_code_is_there(
    make: Make, lean: Backend, folder: Path, is_spare: bool
) -> None:
    if is_spare:
        await make()
        await wait_for_spares(lean)
    (folder / "one.py").touch()
    opening = frame("import os; answer = os.listdir('/app/function')")
    sandbox = await make(code=folder, opening=opening)
    assert (was_spare(sandbox), sandbox.is_opened) == (is_spare, True)
    assert await answer(sandbox) == ["one.py"]
    assert await run(sandbox, "answer = 1") == 1


async def test_what_is_too_long_for_the_helper_is_left_to_the_node(make: Make, lean: Backend) -> None:
    await make()
    await wait_for_spares(lean)
    said = frame("answer = 'first'")
    for opening in (said.ljust(MAX_OPENING + 1), b""):
        sandbox = await make(opening=opening)
        assert (was_spare(sandbox), sandbox.is_opened) == (True, False)
        assert await run(sandbox, "answer = 'second'") == "second"
        await wait_for_spares(lean)


async def test_a_spare_takes_over_the_memory_that_is_asked_for(make: Make, lean: Backend) -> None:
    if not lean.abilities.limits_memory:
        pytest.skip("no memory cgroup on this machine")
    await make(memory_mb=128)
    await wait_for_spares(lean)
    sandbox = await make(memory_mb=32)
    assert was_spare(sandbox)
    source = """
import os, signal
child = os.fork()
if child == 0:
    kept = bytearray(64 << 20)
    signal.pause()
answer = os.waitpid(child, 0)[1]
"""
    assert await run(sandbox, source) == signal.SIGKILL
    assert sandbox.hits().oom_kills == 1
    await sandbox.destroy()
    assert sandbox.ended.result().out_of_memory


async def test_other_bounds_of_scratch_are_never_a_spares(make: Make, lean: Backend) -> None:
    await make(scratch_mb=8)
    await wait_for_spares(lean)
    sandbox = await make(scratch_mb=3)
    assert not was_spare(sandbox)
    source = "import os; status = os.statvfs('/tmp'); answer = status.f_blocks * status.f_frsize >> 20"
    assert await run(sandbox, source) == 3
    await wait_for_spares(lean)
    assert await run(await make(scratch_mb=3), source) == 3


async def test_a_build_is_never_given_a_spare(make: Make, lean: Backend, folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 64_000, 64_000)
    await make()
    await wait_for_spares(lean)
    assert not was_spare(await make(workspace=folder))


async def test_calls_one_at_a_time_find_the_spares_that_the_settings_ask_for(
    make: Make, lean: Backend
) -> None:
    taken = 0
    for _ in range(4):
        taken += was_spare(await make())
        await wait_for_spares(lean)
    assert taken == 3


async def test_what_is_expected_has_spares_before_anybody_asks(make: Make, lean: Backend) -> None:
    for launch in (FORKED, EXECUTED):
        lean.expect(SandboxSpec(id="expected", launch=launch, limits=Limits()))
    await wait_for_spares(lean, 4)
    assert was_spare(await make(FORKED))
    assert was_spare(await make(EXECUTED))


async def test_a_burst_leaves_spares_for_the_next_as_far_as_there_is_memory(
    make: Make, lean: Backend
) -> None:
    told: list[tuple[int, int]] = []
    lean.on_spares = lambda number, memory_mb: told.append((number, memory_mb))
    await asyncio.gather(*(make() for _ in range(12)))
    await wait_for_spares(lean, 8)
    assert max(number for number, _ in told) >= 8
    sandboxes = await asyncio.gather(*(make() for _ in range(12)))
    assert sum(map(was_spare, sandboxes)) >= 8
    lean.bound_spares(0)
    while waiting(lean):
        await asyncio.to_thread(threading.Event().wait, 0.005)
    while told[-1] != (0, 0):
        await asyncio.sleep(0)
    assert not was_spare(await make())


async def test_user_namespaces_are_made_before_a_burst_needs_them(make: Make, lean: Backend) -> None:
    await make()
    while count_users(helper_pid(lean)) < READY_USERS:
        await asyncio.to_thread(threading.Event().wait, 0.01)
    await wait_for_spares(lean)


def count_users(helper: int) -> int:
    """How many user namespaces it holds."""
    found = 0
    for descriptor in Path(f"/proc/{helper}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += os.readlink(descriptor).startswith("user:")
    return found


async def test_a_new_helper_has_spares_again(make: Make, lean: Backend) -> None:
    await make()
    await wait_for_spares(lean)
    os.kill(helper_pid(lean), signal.SIGKILL)
    assert not was_spare(await make())
    await wait_for_spares(lean)
    assert was_spare(await make())


async def test_a_spare_that_ended_is_never_given_away(make: Make, lean: Backend) -> None:
    await make()
    killed = set(await wait_for_spares(lean))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    while killed & set(children_of(helper_pid(lean))):
        await asyncio.to_thread(threading.Event().wait, 0.005)
    assert await run(await make(), "answer = 1") == 1


async def test_closing_ends_the_spares_too(unopened: Backend, node_id: str) -> None:
    await unopened.open()
    sandbox = await unopened.create(SandboxSpec(id="guest", launch=FORKED, limits=Limits()))
    await hello(sandbox)
    await wait_for_spares(unopened)
    await unopened.close()
    await sandbox.destroy()
    assert leaks.left([node_id]) == []


async def test_a_name_of_a_spare_cannot_be_asked_for(lean: Backend, make: Make) -> None:
    with pytest.raises(Exception, match="no name for a sandbox"):
        await lean.create(SandboxSpec(id="Spare-1", launch=FORKED, limits=Limits()))
