"""How a lean sandbox ends, and what is told of it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal

import pytest

from sandboxes.lean.conftest import Make
from sandboxes.lean.guests import BROKEN, EXECUTED, FORKED, MISSING, hello, order, read_all, run
from stoker.errors import SandboxFailed
from stoker.sandboxes.contract import Launch, SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.types import MEBIBYTE, Limits

BOTH = pytest.mark.parametrize("launch", [FORKED, EXECUTED], ids=lambda launch: launch.name)


@BOTH
@pytest.mark.parametrize("code", [0, 3, 137, 139, 255])
async def test_an_exit_code_is_told_as_it_was(make: Make, launch: Launch, code: int) -> None:
    sandbox = await make(launch)
    await order(sandbox, f"import sys; sys.exit({code})")
    ending = await sandbox.ended
    assert (ending.exit_code, ending.signal, ending.destroyed, ending.out_of_memory) == (
        code,
        None,
        False,
        False,
    )


@BOTH
@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("import os; os.abort()", signal.SIGABRT),
        ("import os; os.kill(os.getpid(), 9)", signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 15)", signal.SIGTERM),
        ("import ctypes; ctypes.string_at(0)", signal.SIGSEGV),
        ("import signal; signal.raise_signal(signal.SIGABRT)", signal.SIGABRT),
    ],
)
async def test_a_signal_is_told_as_it_was(make: Make, launch: Launch, source: str, number: int) -> None:
    sandbox = await make(launch)
    await order(sandbox, source)
    ending = await sandbox.ended
    assert (ending.exit_code, ending.signal, ending.out_of_memory) == (None, number, False)


@BOTH
async def test_what_was_printed_arrives_also_when_it_ends_with_an_error(make: Make, launch: Launch) -> None:
    sandbox = await make(launch)
    await order(sandbox, "print('said'); raise AssertionError('oh')")
    assert (await sandbox.ended).exit_code == 1
    assert await read_all(sandbox.stdout) == b"said\n"
    assert b"AssertionError: oh" in await read_all(sandbox.stderr)


async def test_what_was_left_running_ends_with_the_program(make: Make) -> None:
    sandbox = await make()
    source = """
import os, signal, time
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        os.fork()
        signal.pause()
os._exit(0)
"""
    await order(sandbox, source)
    assert (await sandbox.ended).exit_code == 0
    assert await read_all(sandbox.stdout) == b""  # its end came: nobody holds the other end


async def test_orphans_that_end_are_reaped(make: Make) -> None:
    source = """
import os
for number in range(200):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
answer = True
"""
    assert await run(await make(pids=40), source) is True


@BOTH
async def test_too_much_memory_is_told_for_certain(make: Make, lean: Backend, launch: Launch) -> None:
    sandbox = await make(launch, memory_mb=32)
    await order(sandbox, "kept = bytearray(200 << 20)")
    ending = await sandbox.ended
    assert (ending.signal, ending.out_of_memory, ending.destroyed) == (signal.SIGKILL, True, False)
    assert ending.usage.memory_peak_bytes is not None
    assert ending.usage.memory_peak_bytes >= 30 * MEBIBYTE
    if "memory" in lean._groups.controllers:  # else much may be taken between two looks
        assert ending.usage.memory_peak_bytes <= 32 * MEBIBYTE


async def test_all_sandboxes_together_hold_no_more_than_the_node_gives_them(
    node_id: str, lean: Backend
) -> None:
    if "memory" not in lean._groups.controllers:
        pytest.skip("no cgroup of this machine limits memory")
    await lean.close()
    backend = Backend(Settings(node_id=node_id, spares=0, memory_mb=96), (FORKED,))
    await backend.open()
    try:
        limits = Limits(memory_mb=64)
        made = [await backend.create(SandboxSpec(id=name, launch=FORKED, limits=limits)) for name in "abc"]
        for sandbox in made:
            await hello(sandbox)
            await order(sandbox, "kept = b'x' * (48 << 20)")
        done, _ = await asyncio.wait([one.ended for one in made], return_when=asyncio.FIRST_COMPLETED)
        assert all(one.result().out_of_memory for one in done)
        held = [one.held_bytes() for one in made if not one.ended.done()]
        assert sum(one for one in held if one is not None) <= 96 * MEBIBYTE
        for sandbox in made:
            await sandbox.destroy()
    finally:
        await backend.close()


async def test_memory_asked_for_but_never_touched_costs_nothing(make: Make) -> None:
    sandbox = await make(memory_mb=32)
    assert await run(sandbox, "import mmap; kept = mmap.mmap(-1, 400 << 20); answer = len(kept)") == 400 << 20


async def test_a_file_in_scratch_counts_as_memory(make: Make, lean: Backend) -> None:
    sandbox = await make(memory_mb=32, scratch_mb=64)
    await order(sandbox, "open('/tmp/file', 'wb').write(bytes(1 << 20) * 64)")
    assert (await sandbox.ended).out_of_memory


async def test_a_child_killed_for_memory_is_counted_and_the_sandbox_lives(make: Make, lean: Backend) -> None:
    sandbox = await make(memory_mb=48)
    source = """
import os
child = os.fork()
if child == 0:
    kept = bytearray(200 << 20)
    os._exit(0)
answer = os.waitpid(child, 0)[1]
"""
    assert sandbox.hits().oom_kills == 0
    assert await run(sandbox, source) == signal.SIGKILL
    assert sandbox.hits().oom_kills == 1
    assert await run(sandbox, "answer = 1") == 1


@BOTH
async def test_a_program_that_is_killed_because_its_child_ate_the_memory_is_out_of_memory(
    make: Make, lean: Backend, launch: Launch
) -> None:
    sandbox = await make(launch, memory_mb=96)
    source = """
import subprocess
kept = b"x" * (64 << 20)  # so that it is the largest when there is no more
subprocess.run(["/usr/bin/tail", "/dev/zero"])
"""
    await order(sandbox, source)
    ending = await sandbox.ended
    assert (ending.signal, ending.exit_code, ending.out_of_memory) == (signal.SIGKILL, None, True)
    assert sandbox.hits().oom_kills > 0


async def test_a_full_scratch_space_is_seen_from_outside_also_when_the_program_has_ended(make: Make) -> None:
    sandbox = await make(scratch_mb=2)
    assert not sandbox.hits().is_disk_full
    await run(sandbox, "import os; os.mkdir('/tmp/a'); answer = 1")
    assert not sandbox.hits().is_disk_full
    source = """
import sys
try:
    with open('/tmp/a/file', 'wb', 0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    sys.exit(5)
"""
    await order(sandbox, source)
    assert (await sandbox.ended).exit_code == 5
    assert sandbox.hits().is_disk_full


async def test_scratch_space_without_room_for_one_more_file_is_full(make: Make) -> None:
    sandbox = await make(scratch_inodes=16)
    source = """
try:
    for number in range(1000):
        open(f'/tmp/{number}', 'w').close()
except OSError as error:
    answer = error.errno
"""
    assert await run(sandbox, source) == errno.ENOSPC
    assert sandbox.hits().is_disk_full


async def test_every_refused_fork_is_counted(make: Make, lean: Backend) -> None:
    if "pids" not in lean._groups.controllers:
        pytest.skip("no pids cgroup on this machine")
    sandbox = await make(pids=10)
    source = """
import os, signal
refused = 0
for _ in range(15):
    try:
        if os.fork() == 0:
            while True:
                signal.pause()
    except BlockingIOError:
        refused += 1
answer = refused
"""
    refused = await run(sandbox, source)
    assert refused >= 5
    assert sandbox.hits().forks_refused == refused


@BOTH
async def test_a_fork_bomb_meets_its_bound(make: Make, launch: Launch) -> None:
    sandbox = await make(launch, pids=20)
    source = """
import os, signal
answer = 1
try:
    while True:
        if os.fork() == 0:
            while True:
                signal.pause()
        answer += 1
except BlockingIOError:
    pass
"""
    assert await run(sandbox, source) == 20
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    await sandbox.destroy()


async def test_a_bomb_that_never_stops_forking_is_destroyed(make: Make) -> None:
    sandbox = await make(pids=50)
    source = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    await order(sandbox, source)
    await sandbox.destroy()
    assert sandbox.ended.result().destroyed


async def test_a_program_that_stops_itself_is_destroyed(make: Make) -> None:
    sandbox = await make()
    await order(sandbox, "import os, signal; os.kill(0, signal.SIGSTOP)")
    await sandbox.destroy()
    assert sandbox.ended.result().destroyed


async def test_processor_time_and_peak_memory_are_measured(make: Make, lean: Backend) -> None:
    sandbox = await make()
    before = sandbox.usage()
    await run(sandbox, "import time\nkept = bytearray(20 << 20)\nwhile time.process_time() < 0.1: pass")
    after = sandbox.usage()
    assert before.cpu_ms is not None and after.cpu_ms is not None
    assert after.cpu_ms - before.cpu_ms >= 80
    assert after.memory_peak_bytes is not None and after.memory_peak_bytes >= 20 * MEBIBYTE
    await sandbox.destroy()
    assert (sandbox.usage().cpu_ms or 0) >= after.cpu_ms


async def test_a_share_of_a_processor_is_all_it_gets(make: Make) -> None:
    sandbox = await make(cpus=0.2)
    source = """
import time
start = time.monotonic()
while time.process_time() < 0.1:
    pass
answer = time.monotonic() - start
"""
    assert await run(sandbox, source) > 0.2


async def test_a_program_that_is_not_there_is_named(lean: Backend) -> None:
    with pytest.raises(SandboxFailed, match=r"/no/such/program cannot be executed: .*No such file"):
        await lean.create(SandboxSpec(id="missing", launch=MISSING, limits=Limits()))


async def test_an_interpreter_that_is_not_there_is_named(lean: Backend) -> None:
    for _ in range(2):  # the second try is a new one, not an echo
        with pytest.raises(SandboxFailed, match=r"broken cannot be started: .*/no/such/python"):
            await lean.create(SandboxSpec(id="broken", launch=BROKEN, limits=Limits()))


async def test_a_sandbox_works_after_another_one_could_not_be_made(make: Make, lean: Backend) -> None:
    with pytest.raises(SandboxFailed):
        await lean.create(SandboxSpec(id="missing", launch=MISSING, limits=Limits()))
    sandbox = await make(EXECUTED, greets=False)
    assert (await hello(sandbox))["runtime"] == "tiny"
