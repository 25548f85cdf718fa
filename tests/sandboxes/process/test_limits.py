"""What a plain process is held to, and what it is given."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.process.conftest import python
from sandboxes.process.test_life import FOR_EVER, hear, spec
from stoker.sandboxes.contract import Launch, SandboxSpec, Show
from stoker.sandboxes.process import Backend
from stoker.types import MEBIBYTE, Limits

TOUCH = "def touch(megabytes): return [b'x' * (1 << 20) for _ in range(megabytes)]\n"


async def test_it_leads_a_session_without_a_terminal_in_its_scratch(backend: Backend, root: Path) -> None:
    text = "say(os.getsid(0) == os.getpgid(0) == os.getpid(), os.getcwd(), os.readlink('/proc/self/fd/0'))"
    assert await hear(await backend.create(spec(python(text)))) == f"True {root}/one /dev/null"


async def test_it_has_its_four_descriptors_and_no_other(backend: Backend) -> None:
    text = """
kinds = {}
for name in os.listdir('/proc/self/fd'):
    try: kinds[int(name)] = os.readlink('/proc/self/fd/' + name).split(':')[0]
    except OSError: pass
say(sorted(kinds.items()))
"""
    opened = await hear(await backend.create(spec(python(text))))
    assert opened == "[(0, '/dev/null'), (1, 'pipe'), (2, 'pipe'), (3, 'socket'), (4, 'pipe')]"


async def test_its_environment_is_the_launch_s_with_its_own_scratch(backend: Backend, root: Path) -> None:
    launch = python(
        f"import json; os.write(3, json.dumps(dict(os.environ)).encode() + b'\\n')\n{FOR_EVER}",
        A="1",
        HOME="/tmp",
    )
    environment = json.loads(await hear(await backend.create(spec(launch))))
    environment.pop("LC_CTYPE", None)  # the interpreter's own
    assert environment == {"A": "1", "HOME": f"{root}/one", "TMPDIR": f"{root}/one"}


@pytest.fixture
def careless_starter() -> Iterator[None]:
    """Whoever starts the node ignores a signal, as `nohup` does, and blocks one."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    signal.signal(signal.SIGHUP, before)


async def test_no_signal_is_ignored_or_blocked(careless_starter: None, backend: Backend) -> None:
    text = "say(*[line.split()[1] for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')])"
    blocked, ignored = (await hear(await backend.create(spec(python(text))))).split()
    sigpipe_and_sigxfsz = 1 << 12 | 1 << 24  # the interpreter's own doing
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & ~sigpipe_and_sigxfsz == 0


async def test_files_cores_and_descriptors_are_limited(backend: Backend) -> None:
    text = """
import resource
names = ('CORE', 'NOFILE', 'FSIZE', 'DATA')
say(*[resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0] for name in names])
try:
    with open('big', 'wb') as file: file.write(bytes(3 << 20))
except OSError as error:
    say(error.strerror)
"""
    sandbox = await backend.create(spec(python(text), scratch_mb=2, memory_mb=100))
    assert await hear(sandbox) == f"0 1024 {2 * MEBIBYTE} {228 * MEBIBYTE}"
    assert await hear(sandbox) == "File too large"


async def test_a_build_may_write_large_files_into_its_workspace(backend: Backend, folder: Path) -> None:
    launch = python("import resource; say(resource.getrlimit(resource.RLIMIT_FSIZE)[0]); open('made', 'w')")
    wanted = SandboxSpec(id="one", launch=launch, limits=Limits(), workspace=folder)
    sandbox = await backend.create(wanted)
    assert sandbox.workspace_path == str(folder)
    assert await hear(sandbox) == "-1"


async def test_one_large_allocation_fails_inside(backend: Backend) -> None:
    text = "try: b'x' * (300 << 20)\nexcept MemoryError: say('refused')\n"
    assert await hear(await backend.create(spec(python(text), memory_mb=128))) == "refused"


async def test_too_many_small_ones_end_it_as_out_of_memory(backend: Backend) -> None:
    text = f"{TOUCH}held = touch(100)\n{FOR_EVER}"
    sandbox = await backend.create(spec(python(text), memory_mb=64))
    ending = await sandbox.ended
    assert (ending.out_of_memory, ending.signal, ending.destroyed) == (True, 9, False)
    assert sandbox.hits().oom_kills == 1
    assert (ending.usage.memory_peak_bytes or 0) > 64 * MEBIBYTE


async def test_the_largest_of_several_is_the_one_to_go(backend: Backend) -> None:
    text = f"""
{TOUCH}
if os.fork() == 0:
    held = touch(100)
    {FOR_EVER}
say(os.waitstatus_to_exitcode(os.wait()[1]))
{FOR_EVER}
"""
    sandbox = await backend.create(spec(python(text), memory_mb=64))
    assert await hear(sandbox) == "-9"
    assert sandbox.hits().oom_kills == 1
    assert not sandbox.ended.done()


async def test_memory_that_processes_share_counts_once(backend: Backend) -> None:
    text = f"""
{TOUCH}
held = touch(40)
for _ in range(4):
    if os.fork() == 0:
        os.write(3, b'.')
        {FOR_EVER}
{FOR_EVER}
"""
    sandbox = await backend.create(spec(python(text), memory_mb=100))
    loop = asyncio.get_running_loop()
    heard = b""
    while len(heard) < 4:
        heard += await loop.sock_recv(sandbox.channel, 4)
    ended, _ = await asyncio.wait([sandbox.ended], timeout=0.5)
    assert not ended


async def test_use_counts_ended_children_too(backend: Backend) -> None:
    text = """
if os.fork() == 0:
    end = time.process_time() + 0.2
    while time.process_time() < end: pass
    os._exit(0)
os.wait()
"""
    ending = await (await backend.create(spec(python(text)))).ended
    assert ending.usage.cpu_ms is not None
    assert ending.usage.cpu_ms >= 150


async def test_paths_of_ours_are_those_of_the_host(backend: Backend, folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "text").write_text("shown")
    inner = python(
        "say(sys.argv[1:], os.environ['PATH'], open(sys.argv[1]).read())",
        PATH="/opt/ours/deep:/usr/bin:/opt/oursnot:/tmp/x",
    )
    shows = (Show(str(folder), "/opt/ours"), Show("/nowhere", "/opt"))
    launch = Launch(
        name="x-1",
        argv=(*inner.argv, "/opt/ours/deep/text", "/app/function", "/opt/oursnot", "plain"),
        environment=inner.environment,
        shows=shows,
    )
    wanted = SandboxSpec(id="one", launch=launch, limits=Limits(), code=folder)
    heard = await hear(await backend.create(wanted))
    scratch = f"{backend._root}/one"
    arguments = [f"{folder}/deep/text", str(folder), "/nowhere/oursnot", "plain"]
    assert heard == f"{arguments} {folder}/deep:/usr/bin:/nowhere/oursnot:{scratch}/x shown"


async def test_what_it_uses_is_known_while_it_lives(backend: Backend) -> None:
    sandbox = await backend.create(spec(python(f"say('up')\n{FOR_EVER}")))
    await hear(sandbox)
    assert (sandbox.usage().memory_peak_bytes or 0) > MEBIBYTE
    assert sandbox.hits().oom_kills == 0
