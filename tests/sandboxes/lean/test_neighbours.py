"""Two sandboxes stand on the same files of the host, and neither can stop the other there, nor hear it."""

from __future__ import annotations

import errno
import os

import pytest

from sandboxes.lean.conftest import Make
from sandboxes.lean.guests import EXECUTED, FORKED, SERVER_INSIDE, Raised, run
from stoker.sandboxes.contract import Launch

BOTH = pytest.mark.parametrize("launch", [FORKED, EXECUTED], ids=lambda launch: launch.name)

# Without root the devices are the machine's own files, as SECURITY.md says.
DEVICES = ("/dev/null", "/dev/zero") if os.geteuid() == 0 else ()
SHARED = ("/", "/etc", "/etc/passwd", "/usr", "/usr/bin/env", "/dev", SERVER_INSIDE, "/proc", *DEVICES)
HOLD = f"""
import fcntl, os
opened = [os.open(path, os.O_RDONLY) for path in {SHARED!r}]
for descriptor in opened:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
__builtins__["held"] = opened
answer = len(opened)
"""
WATCH = f"""
import ctypes, os
libc = ctypes.CDLL(None)
watching = libc.inotify_init1(os.O_NONBLOCK)
answer = [libc.inotify_add_watch(watching, path.encode(), 0xFFF) > 0 for path in {SHARED!r}]
__builtins__["watching"] = watching
"""
TOUCH = f"""
import os
for path in {SHARED!r}:
    descriptor = os.open(path, os.O_RDONLY)
    os.listdir(descriptor) if os.path.isdir(path) else os.read(descriptor, 10)
    os.close(descriptor)
answer = os.system("/usr/bin/env true > /dev/null")
"""
SEEN = """
import os
try:
    answer = len(os.read(watching, 4096))
except BlockingIOError:
    answer = 0
"""


@BOTH
async def test_a_lock_on_a_file_of_the_base_is_nobody_elses(make: Make, launch: Launch) -> None:
    one, other = await make(launch), await make(launch)
    assert [await run(one, HOLD), await run(other, HOLD)] == [len(SHARED)] * 2
    with pytest.raises(Raised, match="BlockingIOError"):
        await run(
            one, "import fcntl, os; fcntl.flock(os.open('/usr', os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )


@BOTH
async def test_what_one_sandbox_reads_another_does_not_hear(make: Make, launch: Launch) -> None:
    one, other = await make(launch), await make(launch)
    assert set(await run(one, WATCH)) == {True}
    await run(one, SEEN)
    assert await run(other, TOUCH) == 0
    assert await run(one, SEEN) == 0
    assert await run(one, TOUCH) == 0
    assert await run(one, SEEN) > 0


async def test_a_lease_on_a_file_of_the_base_is_refused(make: Make) -> None:
    source = """
import fcntl, os
try:
    fcntl.fcntl(os.open("/usr/bin/env", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
except OSError as error:
    answer = error.errno
"""
    assert await run(await make(), source) == errno.EACCES


async def test_a_lock_file_in_scratch_works(make: Make) -> None:
    source = """
import fcntl, os
one, other = (os.open("/tmp/lock", os.O_CREAT | os.O_RDWR) for _ in range(2))
fcntl.flock(one, fcntl.LOCK_EX)
try:
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    fcntl.flock(one, fcntl.LOCK_UN)
    answer = fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB) is None
"""
    assert await run(await make(), source) is True


async def test_what_one_sandbox_leaves_in_shared_memory_and_queues_another_does_not_find(make: Make) -> None:
    source = r"""
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
IPC_CREAT, IPC_EXCL, KEY = 0o1000, 0o2000, 4711
answer = [
    libc.shmget(KEY, 4096, IPC_CREAT | IPC_EXCL | 0o666) >= 0,
    libc.semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o666) >= 0,
    libc.msgget(KEY, IPC_CREAT | IPC_EXCL | 0o666) >= 0,
    libc.mq_open(b"/name", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666, None) >= 0,
    os.listdir("/dev/shm"),
]
open("/dev/shm/left", "w").close()
name = socket.socket(socket.AF_UNIX)
name.bind("\0name")
name.listen()
__builtins__["kept"] = name
"""
    one, other = await make(), await make()
    # A queue of POSIX's is refused to everybody: RLIMIT_MSGQUEUE is 0.
    assert [await run(one, source), await run(other, source)] == [[True, True, True, False, []]] * 2
    with pytest.raises(Raised, match="ConnectionRefusedError"):
        await run(await make(), r"import socket; socket.socket(socket.AF_UNIX).connect('\0name')")
