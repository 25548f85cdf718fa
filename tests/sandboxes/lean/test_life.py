"""From the making of a lean sandbox to its removal, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import leaks
from sandboxes.lean.conftest import Make
from sandboxes.lean.guests import (
    FORKED,
    cgroups_of,
    children_of,
    guardian_pid,
    hello,
    helper_of,
    helper_pid,
    is_init,
    launch,
    only_root,
    order,
    run,
    user_of,
)
from stoker.errors import BackendLost, SandboxFailed
from stoker.sandboxes.contract import Sandbox, SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.sandboxes.lean.packets import MAKE, NUMBERS_OF_A_LIFE, pack
from stoker.types import Ending, Limits


@pytest.fixture
def spares() -> int:
    """None: what is counted here is what was asked for. `test_spares` has the others."""
    return 0


def spec(id: str = "guest", code: Path | None = None) -> SandboxSpec:
    return SandboxSpec(id=id, launch=FORKED, limits=Limits(), code=code)


async def test_destroying_twice_is_destroying_once(make: Make, node_id: str) -> None:
    sandbox = await make()
    await asyncio.gather(sandbox.destroy(), sandbox.destroy())
    await sandbox.destroy()
    assert sandbox.ended.result().destroyed
    assert cgroups_of(node_id) == []


async def test_one_that_has_ended_by_itself_can_be_destroyed(make: Make) -> None:
    sandbox = await make()
    await order(sandbox, "import os; os._exit(4)")
    await sandbox.ended
    await sandbox.destroy()
    assert (sandbox.ended.result().exit_code, sandbox.ended.result().destroyed) == (4, False)


async def test_a_start_that_is_cancelled_leaves_nothing(lean: Backend, node_id: str) -> None:
    for turns in range(12):
        os.kill(helper_pid(lean), signal.SIGSTOP)  # where a turn takes long it would be made in so few
        task = asyncio.create_task(lean.create(spec(f"guest{turns}")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        os.kill(helper_pid(lean), signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cgroups_of(node_id) == []
    async with asyncio.timeout(20):  # whoever makes namespaces for the next ones ends by itself
        while len(children_of(helper_pid(lean))) > 1:  # the zygote
            await asyncio.sleep(0)


async def test_a_destruction_that_is_cancelled_goes_on(make: Make) -> None:
    sandbox = await make()
    task = asyncio.create_task(sandbox.destroy())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sandbox.ended).destroyed


async def test_an_id_in_use_is_refused_and_free_again_later(make: Make, lean: Backend) -> None:
    sandbox = await lean.create(spec())
    with pytest.raises(SandboxFailed, match="there is a sandbox 'guest' already"):
        await lean.create(spec())
    assert (await hello(sandbox))["runtime"] == "tiny"
    await sandbox.destroy()
    await (await lean.create(spec())).destroy()


async def test_a_launch_that_was_not_given_at_the_start_is_refused(lean: Backend) -> None:
    stranger = SandboxSpec(id="guest", launch=launch(name="stranger"), limits=Limits())
    with pytest.raises(SandboxFailed, match=r"no launch 'stranger' .*; there is forked, executed"):
        await lean.create(stranger)


async def test_a_code_folder_that_is_none_is_refused(lean: Backend, folder: Path) -> None:
    with pytest.raises(SandboxFailed, match=r"cannot show .*missing: No such file"):
        await lean.create(spec(code=folder / "missing"))
    (folder / "file").touch()
    with pytest.raises(SandboxFailed, match=r"cannot show .*file: Not a directory"):
        await lean.create(spec(code=folder / "file"))
    (folder / "link").symlink_to("/etc")
    with pytest.raises(SandboxFailed, match=r"cannot show .*link"):
        await lean.create(spec(code=folder / "link"))


@pytest.mark.parametrize("limits", [{"memory_mb": 0}, {"pids": 0}, {"scratch_mb": 0}, {"scratch_inodes": 0}])
async def test_a_limit_of_nothing_is_refused(lean: Backend, limits: dict[str, int]) -> None:
    with pytest.raises(SandboxFailed, match="bounds"):
        await lean.create(SandboxSpec(id="guest", launch=FORKED, limits=Limits(**limits)))


@pytest.mark.parametrize("id", ["../up", "a/b", "", ".hidden", "ü", "x" * 65, "Upper", "nul\0"])
async def test_a_name_that_could_be_a_path_is_refused(lean: Backend, id: str) -> None:
    with pytest.raises(SandboxFailed, match="name"):
        await lean.create(spec(id))


async def test_thirty_at_once_are_thirty_sandboxes(make: Make) -> None:
    sandboxes = await asyncio.gather(*[make() for _ in range(30)])
    users = await asyncio.gather(*[user_of(sandbox) for sandbox in sandboxes])
    assert len(set(users)) == (30 if os.geteuid() == 0 else 1)
    await asyncio.gather(*[sandbox.destroy() for sandbox in sandboxes])


async def test_fifty_lives_leave_the_helper_as_it_was(make: Make, lean: Backend, node_id: str) -> None:
    def held() -> list[int]:
        pid = helper_pid(lean)
        processes = [pid, *children_of(pid), os.getpid()]
        return [len(os.listdir(f"/proc/{process}/fd")) for process in processes]

    await (await make()).destroy()
    before, mounts = held(), Path("/proc/self/mountinfo").read_text()
    for _ in range(50):
        await (await make()).destroy()
    # The zygote closes what it handed on a moment after the sandbox is there, sometimes after its end.
    give_up = time.monotonic() + leaks.PATIENCE_S
    while held() != before and time.monotonic() < give_up:
        await asyncio.sleep(0)
    assert [now for now, then in zip(held(), before, strict=True) if now > then] == []
    assert cgroups_of(node_id) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


async def test_a_network_that_was_used_is_not_given_to_the_next(make: Make) -> None:
    source = "import os; answer = os.readlink('/proc/self/ns/net')"
    quiet = await make()
    used = await run(quiet, source)
    await quiet.destroy()
    talker = await make()
    assert await run(talker, source) == used
    talk = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname()).close()
"""
    await run(talker, talk)
    await talker.destroy()
    assert await run(await make(), source) != used


def zygote_of(helper: int) -> int:
    (zygote,) = [
        pid
        for pid in children_of(helper)
        if b"boot" in Path(f"/proc/{pid}/cmdline").read_bytes() and not is_init(pid)
    ]
    return zygote


async def test_what_a_zygote_that_is_killed_was_to_fork_is_forked_by_the_next(
    make: Make, lean: Backend
) -> None:
    """With orders unread, and the next one on its way before the helper hears of the end."""
    kept, witness = await make(), await make()
    helper = helper_pid(lean)
    zygote = zygote_of(helper)
    os.kill(zygote, signal.SIGSTOP)
    asked = [asyncio.create_task(make()) for _ in range(3)]
    await asyncio.sleep(0)
    await witness.destroy()  # the helper has passed their orders on before
    os.kill(helper, signal.SIGSTOP)
    asked.append(asyncio.create_task(make()))
    await asyncio.sleep(0)
    os.kill(zygote, signal.SIGKILL)
    os.kill(helper, signal.SIGCONT)
    for sandbox in await asyncio.gather(*asked):
        assert await run(sandbox, "answer = 1") == 1
    assert await run(kept, "answer = 2") == 2
    assert helper_pid(lean) == helper


async def test_a_zygote_that_is_killed_is_started_anew(make: Make, lean: Backend) -> None:
    before = await make()
    os.kill(zygote_of(helper_pid(lean)), signal.SIGKILL)
    after = await make()
    assert await run(after, "answer = 1") == 1
    assert await run(before, "answer = 1") == 1


def identities(groups: list[str]) -> set[tuple[int, int]]:
    """A new helper may give a name again, not a group."""
    return {(status.st_dev, status.st_ino) for status in map(os.stat, groups)}


async def test_when_the_helper_is_killed_every_sandbox_is_lost_and_new_ones_can_be_made(
    make: Make, lean: Backend, node_id: str
) -> None:
    before = [await make() for _ in range(3)]
    for _ in range(3):
        lost = await make()
        groups = identities(cgroups_of(node_id))
        os.kill(helper_pid(lean), signal.SIGKILL)
        assert (await lost.ended) == Ending(lost=True)
        after = await make()
        assert await run(after, "answer = 1") == 1
        assert identities(cgroups_of(node_id)).isdisjoint(groups)
        await after.destroy()
        await lost.destroy()
    assert all(sandbox.ended.result().lost for sandbox in before)


async def test_starts_under_way_when_the_helper_is_killed_are_tried_again(lean: Backend) -> None:
    tasks = [asyncio.create_task(lean.create(spec(f"guest{number}"))) for number in range(10)]
    first = await tasks[0]
    helper = helper_pid(lean)
    os.kill(helper, signal.SIGSTOP)  # on a busy machine it may have made all ten by now
    tasks += [asyncio.create_task(lean.create(spec(f"later{number}"))) for number in range(3)]
    await asyncio.sleep(0)
    os.kill(helper, signal.SIGKILL)
    sandboxes = await asyncio.gather(*tasks)
    assert (await first.ended).lost
    after = [sandbox for sandbox in sandboxes if not sandbox.ended.done()]
    assert set(sandboxes[10:]) <= set(after)
    for sandbox in after:
        await hello(sandbox)
        assert await run(sandbox, "answer = 1") == 1
    for sandbox in sandboxes:
        await sandbox.destroy()


async def test_a_start_that_nobody_wants_any_more_is_not_tried_again(lean: Backend, node_id: str) -> None:
    helper = helper_pid(lean)
    os.kill(helper, signal.SIGSTOP)
    task = asyncio.create_task(lean.create(spec()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    os.kill(helper, signal.SIGKILL)
    with pytest.raises(asyncio.CancelledError):
        await task
    await (await lean.create(spec())).destroy()
    assert cgroups_of(node_id) == []


async def test_an_order_for_a_helper_that_died_is_none_for_the_next(lean: Backend, node_id: str) -> None:
    assert lean._link is not None
    old = next(lean._numbers)
    os.kill(helper_pid(lean), signal.SIGKILL)
    await (await lean.create(spec())).destroy()
    while next(lean._numbers) < NUMBERS_OF_A_LIFE:
        await asyncio.sleep(0)
    lean._link.send(pack(MAKE, old, lean._make(spec("stale"))[1]))
    await (await lean.create(spec())).destroy()
    assert cgroups_of(node_id) == []


async def test_a_helper_that_keeps_dying_is_given_up_and_said(unopened: Backend, node_id: str) -> None:
    await unopened.open()
    sandbox = await unopened.create(spec())
    broken = asyncio.create_task(unopened.wait_broken())
    while not broken.done():
        for pid in children_of(guardian_pid(unopened)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0)
    assert "ended 5 times within 10 s, the last time by SIGKILL" in await broken
    with pytest.raises(BackendLost, match=r"no sandbox can be made any more: .*; restart the node"):
        await unopened.create(spec("late"))
    await sandbox.destroy()
    await unopened.close()
    assert leaks.left([node_id]) == []


async def test_when_the_guardian_is_killed_the_helper_cleans_and_the_node_is_told(
    unopened: Backend, node_id: str
) -> None:
    await unopened.open()
    sandbox = await unopened.create(spec())
    await hello(sandbox)
    os.kill(guardian_pid(unopened), signal.SIGKILL)
    assert (await sandbox.ended).lost
    assert await unopened.wait_broken() == "the sandbox helper or its guardian was ended from outside"
    await sandbox.destroy()
    await unopened.close()
    assert leaks.left([node_id]) == []


async def test_when_guardian_and_helper_are_killed_nothing_lives_on_and_the_next_start_cleans(
    unopened: Backend, node_id: str
) -> None:
    await unopened.open()
    tasks = [asyncio.create_task(unopened.create(spec(f"guest{number}"))) for number in range(10)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    guardian, helper = guardian_pid(unopened), helper_pid(unopened)
    os.kill(guardian, signal.SIGSTOP)
    os.kill(helper, signal.SIGKILL)
    os.kill(guardian, signal.SIGKILL)
    await unopened.wait_broken()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Sandbox):
            assert result.ended.result().lost
            await result.destroy()
        else:
            assert isinstance(result, BackendLost)
    await unopened.close()
    assert [thing for thing in leaks.left([node_id]) if not thing.startswith("cgroup")] == []
    again = Backend(Settings(node_id=node_id, spares=0), (FORKED,))
    await again.open()
    assert cgroups_of(node_id) == []
    await again.close()
    assert leaks.left([node_id]) == []


NODE = """
import asyncio, sys
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.types import Limits
from sandboxes.lean.guests import cgroups_of, children_of, FORKED, EXECUTED, hello

async def main():
    backend = Backend(Settings(node_id=sys.argv[1]), (FORKED, EXECUTED))
    await backend.open()
    for number, launch in enumerate((FORKED, FORKED, EXECUTED)):
        await hello(await backend.create(SandboxSpec(id=f"guest{number}", launch=launch, limits=Limits())))
    print(backend._process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def node(unopened: Backend, node_id: str) -> subprocess.Popen[bytes]:
    """Another process that holds three sandboxes; its guardian's pid is on its standard output."""
    path = os.pathsep.join(place for place in sys.path if place)
    return subprocess.Popen(
        [sys.executable, "-c", NODE, node_id], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )


def test_when_the_node_is_killed_the_helper_removes_everything(
    node: subprocess.Popen[bytes], node_id: str
) -> None:
    assert node.stdout is not None
    assert int(node.stdout.readline()) > 0
    assert len(cgroups_of(node_id)) > 0 or os.geteuid() != 0
    node.kill()
    node.wait()
    node.stdout.close()
    assert leaks.left([node_id]) == []


async def test_when_all_are_killed_the_next_start_removes_what_is_left(
    node: subprocess.Popen[bytes], node_id: str
) -> None:
    assert node.stdout is not None
    guardian = int(node.stdout.readline())
    helper = helper_of(guardian)
    for pid in (node.pid, guardian, helper):  # so that none can be the one to notice
        os.kill(pid, signal.SIGSTOP)
    for pid in (helper, guardian, node.pid):
        os.kill(pid, signal.SIGKILL)
    node.wait()
    node.stdout.close()
    assert [thing for thing in leaks.left([node_id]) if thing.startswith("process")] == []
    assert len(cgroups_of(node_id)) > 0 or os.geteuid() != 0
    backend = Backend(Settings(node_id=node_id, spares=0), (FORKED,))
    await backend.open()
    assert cgroups_of(node_id) == []
    await backend.close()
    assert leaks.left([node_id]) == []


async def test_closing_ends_what_lives_and_can_be_done_twice(unopened: Backend, node_id: str) -> None:
    await unopened.open()
    sandbox = await unopened.create(spec())
    await unopened.close()
    await unopened.close()
    assert sandbox.ended.done()
    await sandbox.destroy()
    assert leaks.left([node_id]) == []


async def test_one_that_was_prepared_but_never_opened_can_be_closed(unopened: Backend, node_id: str) -> None:
    unopened.prepare()
    await unopened.close()
    assert leaks.left([node_id]) == []


@only_root
async def test_a_fault_of_the_helper_is_an_error_and_leaves_nothing(node_id: str, unopened: Backend) -> None:
    backend = Backend(Settings(node_id=node_id, uid_base=-1), (FORKED,))
    await backend.open()
    with pytest.raises(SandboxFailed):
        await backend.create(spec())
    await backend.close()
    assert leaks.left([node_id]) == []


UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
import stoker.types
from stoker.linux import privileges
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.types import Limits
from sandboxes.lean.guests import FORKED, LAUNCHES, hello, run

async def main():
    await backend.open()
    for id in ("one", "other"):
        spec = SandboxSpec(id=id, launch=FORKED, limits=Limits(), code=Path(sys.argv[2]))
        sandbox = await backend.create(spec)
        await hello(sandbox)
        assert await run(sandbox, "import os; answer = os.listdir('/app/function')") == ["main.py"]
        assert (sandbox.usage().cpu_ms or 1) > 0
        assert sandbox.hits().oom_kills == 0
        await sandbox.destroy()
        assert sandbox.ended.result().destroyed
    await backend.close()

backend = Backend(Settings(node_id=sys.argv[1]), LAUNCHES)
backend.prepare()
before = os.readlink("/proc/self/ns/mnt")
privileges.give_up("", 64321, [Path(sys.argv[2]), *privileges.own_code(), Path("/root")])
assert os.getresuid() == (64321,) * 3
assert backend.problems() == []
asyncio.run(main())
print("held", os.readlink("/proc/self/ns/mnt") != before)
"""


@only_root
def test_everything_works_after_the_node_has_given_root_up(
    unopened: Backend, node_id: str, folder: Path
) -> None:
    (folder / "main.py").touch()
    path = os.pathsep.join(place for place in sys.path if place)
    run = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, node_id, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert run.stdout.startswith(b"held")
    assert leaks.left([node_id]) == []
