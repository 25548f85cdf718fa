"""Nothing of a plain process is left, whoever dies and in whatever order."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import leaks
from sandboxes.process.conftest import python
from stoker.errors import BackendUnavailable, SandboxFailed
from stoker.sandboxes.contract import Launch, Sandbox, SandboxSpec
from stoker.sandboxes.process import Backend, Settings
from stoker.types import Limits

DAEMON = """
heard, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        say('daemon', os.getpid())
        os.close(told)
        while True: time.sleep(3600)
    os._exit(0)
os.close(told)
os.read(heard, 1)  # nothing: its end, when the daemon has spoken
os.wait()
"""
FOR_EVER = "while True: time.sleep(3600)\n"


def spec(launch: Launch, id: str = "one", **limits: int) -> SandboxSpec:
    return SandboxSpec(id=id, launch=launch, limits=Limits(**limits))  # type: ignore[arg-type]


async def hear(sandbox: Sandbox) -> str:
    """The next line that the program says; empty at its end."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        byte = await loop.sock_recv(sandbox.channel, 1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pid_of(sandbox: Sandbox) -> int:
    return int(repr(sandbox).rpartition(" as ")[2].rstrip(">"))


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended may still wait to be reaped by whoever inherited it."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def kill(pid: int) -> None:
    """Kill it, and return when it is dead."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(select.select, [pidfd], [], [])
    os.close(pidfd)


async def test_a_daemon_is_the_supervisor_s_child_and_ends_with_the_sandbox(backend: Backend) -> None:
    sandbox = await backend.create(spec(python(DAEMON + FOR_EVER)))
    daemon = int((await hear(sandbox)).split()[1])
    while parent_of(daemon) != parent_of(pid_of(sandbox)):  # the one that made it may not have ended yet
        await asyncio.sleep(0)
    await sandbox.destroy()
    assert not os.path.exists(f"/proc/{daemon}")


async def test_a_daemon_ends_when_the_program_does(backend: Backend) -> None:
    sandbox = await backend.create(spec(python(DAEMON + "sys.exit(5)")))
    daemon = int((await hear(sandbox)).split()[1])
    assert (await sandbox.ended).exit_code == 5
    assert not os.path.exists(f"/proc/{daemon}")
    await sandbox.destroy()


async def test_what_forks_faster_than_it_can_be_killed_is_ended(backend: Backend) -> None:
    bomb = """
say('lit')
for _ in range(3): os.fork()
while True:
    pid = os.fork()
    if pid:
        os._exit(0)
"""
    text = f"import os\nif os.fork() == 0:\n{_indent(bomb)}\n{FOR_EVER}"
    sandbox = await backend.create(spec(python(text)))
    assert await hear(sandbox) == "lit"
    await sandbox.destroy()


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


async def test_one_that_ignores_every_signal_and_stops_itself_is_ended(backend: Backend) -> None:
    text = """
import signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
say('deaf')
os.kill(os.getpid(), signal.SIGSTOP)
"""
    sandbox = await backend.create(spec(python(text)))
    assert await hear(sandbox) == "deaf"
    await sandbox.destroy()
    assert sandbox.ended.result().destroyed


async def test_a_killed_supervisor_takes_the_program_along(backend: Backend, root: Path) -> None:
    sandbox = await backend.create(spec(python(DAEMON + FOR_EVER, TMPDIR="/tmp")))
    daemon = int((await hear(sandbox)).split()[1])
    os.kill(parent_of(pid_of(sandbox)), signal.SIGKILL)
    ending = await sandbox.ended
    assert (ending.exit_code, ending.destroyed) == (None, False)
    await sandbox.destroy()
    assert not is_alive(daemon)
    assert not (root / "one").exists()


async def test_a_killed_keeper_is_started_anew(backend: Backend) -> None:
    first = await backend.create(spec(python("say('up')\n" + FOR_EVER)))
    await kill(parent_of(parent_of(pid_of(first))))
    second = await backend.create(spec(python("say('up')\n" + FOR_EVER), "two"))
    assert [await hear(each) for each in (first, second)] == ["up", "up"]
    assert not first.ended.done()


NODE = """
import asyncio, sys
from pathlib import Path
from stoker.sandboxes.contract import Launch, SandboxSpec
from stoker.sandboxes.process import Backend, Settings
from stoker.types import Limits

async def main():
    backend = Backend(Settings(root=Path(sys.argv[1])), ())
    await backend.open()
    for number in range(3):
        launch = Launch(name="x-1", argv=(sys.executable, "-I", "-S", "-c", sys.argv[2]))
        await backend.create(SandboxSpec(id=f"s{number}", launch=launch, limits=Limits()))
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def start_node(root: Path, text: str) -> subprocess.Popen[str]:
    source = str(Path(sys.modules["stoker"].__path__[0]).parent)
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, str(root), "import os, sys, time\ndef say(*words): pass\n" + text],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": source},
    )
    assert node.stdout is not None
    assert node.stdout.readline() == "up\n"
    return node


def test_a_killed_node_leaves_nothing(root: Path) -> None:
    with start_node(root, DAEMON + FOR_EVER) as node:
        node.kill()
    assert leaks.left([str(root)]) == []
    while [path.name for path in root.iterdir()] != ["lock"]:
        threading.Event().wait(0.01)


async def test_the_next_start_removes_what_even_the_supervisors_could_not(
    root: Path, nothing_left: None
) -> None:
    (root / "old" / "deep").mkdir(parents=True)
    orphan = subprocess.Popen(["sleep", "1000"], env={"TMPDIR": str(root / "old")}, start_new_session=True)
    bystander = subprocess.Popen(["sleep", "1000"], env={"TMPDIR": f"{root}-other/x"})
    backend = Backend(Settings(root=root), ())
    try:
        await backend.open()
        assert orphan.wait() == -signal.SIGKILL
        assert bystander.poll() is None
        assert [path.name for path in root.iterdir()] == ["lock"]
    finally:
        await backend.close()
        bystander.kill()
        bystander.wait()


async def test_two_nodes_do_not_share_a_folder(backend: Backend, root: Path) -> None:
    with pytest.raises(BackendUnavailable, match="another node uses"):
        await Backend(Settings(root=root), ()).open()


async def test_a_folder_that_cannot_be_made_is_told(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(BackendUnavailable, match=r"cannot use .*file/scratch for scratch: Not a directory"):
        await Backend(Settings(root=home / "file" / "scratch"), ()).open()


async def test_an_id_in_use_is_refused_and_its_owner_unharmed(backend: Backend) -> None:
    first = await backend.create(spec(python("say('up')\n" + FOR_EVER)))
    with pytest.raises(SandboxFailed, match="File exists"):
        await backend.create(spec(python(FOR_EVER)))
    assert await hear(first) == "up"
    await first.destroy()
    await (await backend.create(spec(python(FOR_EVER)))).destroy()


async def test_an_unopened_backend_and_a_closed_one_refuse(root: Path) -> None:
    backend = Backend(Settings(root=root), ())
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="not open"):
            await backend.create(spec(python("")))
        await backend.open()
        await backend.close()
        await backend.close()


async def test_it_can_be_opened_again(root: Path, nothing_left: None) -> None:
    backend = Backend(Settings(root=root), ())
    for _ in range(2):
        await backend.open()
        sandbox = await backend.create(spec(python("say('up')")))
        assert await hear(sandbox) == "up"
        await backend.close()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("/no/such/program",), "cannot start '/no/such/program': No such file or directory"),
        (("/etc/passwd",), "cannot start '/etc/passwd': Permission denied"),
        (("/usr",), "cannot start '/usr': Permission denied"),
    ],
)
async def test_what_cannot_be_started_is_told_with_the_reason(
    backend: Backend, root: Path, argv: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(SandboxFailed) as failed:
        await backend.create(spec(Launch(name="x-1", argv=argv)))
    assert failed.value.message == reason
    assert [path.name for path in root.iterdir()] == ["lock"]


async def test_thirty_start_at_once(backend: Backend) -> None:
    creations = [backend.create(spec(python("say('up')\n" + FOR_EVER), f"n{n}")) for n in range(30)]
    sandboxes = await asyncio.gather(*creations)
    assert [await hear(sandbox) for sandbox in sandboxes] == ["up"] * 30
    await asyncio.gather(*(sandbox.destroy() for sandbox in sandboxes))
