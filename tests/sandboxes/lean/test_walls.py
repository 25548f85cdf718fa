"""What code inside a lean sandbox sees, and what it cannot do."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.lean.conftest import Make
from sandboxes.lean.guests import (
    ENVIRONMENT,
    EXECUTED,
    FORKED,
    Raised,
    only_root,
    order,
    run,
    seen_by_the_host,
    until,
    user_of,
)
from stoker.errors import SandboxFailed
from stoker.linux.syscalls import MS_NODEV, MS_NOSUID, mount, umount
from stoker.sandboxes.contract import Launch, Sandbox
from stoker.sandboxes.lean.inside.walls import FIRST
from stoker.sandboxes.lean.privileged.first import program
from stoker.sandboxes.lean.sandbox import Sandbox as LeanSandbox
from stoker.types import MEBIBYTE, Network

BOTH = pytest.mark.parametrize("launch", [FORKED, EXECUTED], ids=lambda launch: launch.name)
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")

SYSCALL = """
import ctypes, errno, json
libc = ctypes.CDLL(None, use_errno=True)
answer = {}
for name, number, *arguments in json.loads('%s'):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    answer[name] = errno.errorcode.get(ctypes.get_errno(), "") if result < 0 else "allowed"
"""
# Numbers of x86-64; those above 423 are everyone's.
REFUSED = {
    "x86_64": [
        ["mount", 165, 0, 0, 0, 0, 0],
        ["umount2", 166, 0, 0],
        ["pivot_root", 155, 0, 0],
        ["chroot", 161, 0],
        ["unshare", 272, 0x10000000],
        ["setns", 308, 0, 0],
        ["ptrace", 101, 0, 0, 0, 0],
        ["process_vm_readv", 310, 1, 0, 0, 0, 0, 0],
        ["keyctl", 250, 0, 0],
        ["add_key", 248, 0, 0, 0, 0, 0],
        ["request_key", 249, 0, 0, 0, 0],
        ["bpf", 321, 0, 0, 0],
        ["perf_event_open", 298, 0, 0, 0, 0, 0],
        ["userfaultfd", 323, 0],
        ["open_by_handle_at", 304, 0, 0, 0],
        ["kexec_load", 246, 0, 0, 0, 0],
        ["init_module", 175, 0, 0, 0],
        ["modify_ldt", 154, 0, 0, 0],
        ["syslog", 103, 3, 0, 0],
        ["swapon", 167, 0, 0],
        ["reboot", 169, 0, 0, 0, 0],
        ["quotactl", 179, 0, 0, 0, 0],
        ["open_tree", 428, -100, 0, 1],
        ["move_mount", 429, 0, 0, 0, 0, 0],
        ["fsopen", 430, 0, 0],
        ["mount_setattr", 442, 0, 0, 0, 0, 0],
        ["pidfd_getfd", 438, 0, 0, 0],
        ["clone with a new user namespace", 56, 0x10000011, 0, 0, 0, 0],
        ["clone with a new user namespace, high bits set", 56, 0x1_10000011, 0, 0, 0, 0],
        ["socket of AF_NETLINK", 41, 16, 3, 0],
        ["socket of AF_PACKET", 41, 17, 3, 0],
        ["socket of AF_ALG", 41, 38, 5, 0],
        ["socket of AF_VSOCK", 41, 40, 1, 0],
        ["socket of AF_ALG, high bits set", 41, 38 + 2**32, 5, 0],
        ["ioctl TIOCSTI", 16, 0, 0x5412, 0],
        ["ioctl TIOCSTI, high bits set", 16, 0, 0x5412 + 2**32, 0],
        ["ioctl TIOCLINUX", 16, 0, 0x541C, 0],
    ],
}
UNKNOWN = [
    ["clone3", 435, 0, 0],
    ["io_uring_setup", 425, 1, 0],
    ["io_uring_enter", 426, 0, 0, 0, 0, 0, 0],
    ["memfd_secret", 447, 0],
    ["no such call", 4000],
]


async def asked(sandbox: Sandbox, calls: list[list[object]]) -> dict[str, str]:
    answers: dict[str, str] = await run(sandbox, SYSCALL % json.dumps(calls))
    return answers


@BOTH
async def test_every_namespace_is_another_than_the_hosts(make: Make, launch: Launch) -> None:
    sandbox = await make(launch)
    source = f"import os; answer = {{n: os.readlink('/proc/self/ns/' + n) for n in {NAMESPACES!r}}}"
    inside = await run(sandbox, source)
    assert {name for name in NAMESPACES if inside[name] == os.readlink(f"/proc/self/ns/{name}")} == set()


async def test_two_sandboxes_share_no_namespace(make: Make) -> None:
    source = f"import os; answer = {{n: os.readlink('/proc/self/ns/' + n) for n in {NAMESPACES!r}}}"
    one, other = await run(await make(), source), await run(await make(), source)
    assert {name for name in NAMESPACES if one[name] == other[name]} == set()


@BOTH
async def test_nothing_but_scratch_can_be_written(make: Make, launch: Launch, folder: Path) -> None:
    (folder / "main.py").write_text("")
    folder.chmod(0o777)
    sandbox = await make(launch, code=folder)
    source = """
import os
answer = []
for top, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(top, name) not in ("/proc", "/usr", "/opt")]
    try:
        os.close(os.open(os.path.join(top, "probe"), os.O_CREAT | os.O_WRONLY))
        os.unlink(os.path.join(top, "probe"))
        answer.append(top)
    except OSError:
        pass
"""
    assert sorted(await run(sandbox, source)) == ["/dev/shm", "/tmp"]
    mounts = await run(sandbox, "answer = open('/proc/self/mountinfo').read()")
    writable = {line.split()[4] for line in mounts.splitlines() if line.split()[5].split(",")[0] == "rw"}
    assert writable == {"/tmp", "/dev/shm"}


@BOTH
@only_root
async def test_each_sandbox_is_a_user_of_its_own_without_groups(make: Make, launch: Launch) -> None:
    one, other = await seen_by_the_host(await make(launch)), await seen_by_the_host(await make(launch))
    for seen in (one, other):
        user = seen["Uid"].split()[0]
        assert int(user) > 0x6FFF_FFFF
        assert (seen["Uid"].split(), seen["Gid"].split(), seen["Groups"].strip()) == (
            [user] * 4,
            [user] * 4,
            "",
        )
        assert (seen["uid_map"], seen["gid_map"], seen["setgroups"]) == (*[f"65534 {user} 1"] * 2, "deny")
    assert one["Uid"] != other["Uid"]


@BOTH
async def test_inside_everybody_is_nobody(make: Make, launch: Launch) -> None:
    source = """
import os, pwd
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
answer = [
    [*os.getresuid(), *os.getresgid(), os.getgroups()],
    [status["Uid"].split(), status["Gid"].split()],
    [pwd.getpwuid(os.getuid()).pw_name, os.path.expanduser("~nobody")],
    [os.stat(folder).st_uid for folder in ("/", "/usr", "/tmp")],
]
"""
    ids, status, name, owners = await run(await make(launch), source)
    assert ids == [65534] * 6 + [[]]
    assert status == [["65534"] * 4] * 2
    assert name == ["nobody", "/tmp"]
    assert owners == [65534] * 3  # whom the namespace has no name for, root among them, is nobody too


async def test_no_other_user_can_be_become_from_inside(make: Make) -> None:
    source = """
import os
answer = []
for attempt, argument in ((os.setuid, 0), (os.setgid, 0), (os.setgroups, [0]), (os.setuid, 1)):
    try:
        attempt(argument)
        answer.append("done")
    except OSError as error:
        answer.append(error.errno)
"""
    answer = await run(await make(), source)
    assert answer == [errno.EINVAL, errno.EINVAL, errno.EPERM, errno.EINVAL]


@BOTH
async def test_no_privilege_is_left_to_gain(make: Make, launch: Launch) -> None:
    sandbox = await make(launch)
    status = await run(sandbox, "answer = open('/proc/self/status').read()")
    lines = dict(line.split(":\t") for line in status.splitlines())
    assert {lines[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (lines["NoNewPrivs"], lines["Seccomp"], lines["Umask"]) == ("1", "2", "0022")
    source = "import ctypes; answer = ctypes.CDLL(None).prctl(27, 0, 0, 0, 0)"  # PR_GET_SECUREBITS
    assert await run(sandbox, source) == 0b11101011


@BOTH
async def test_of_no_kind_of_namespace_may_there_be_another_one(make: Make, launch: Launch) -> None:
    source = (
        "import os; answer = {n: open('/proc/sys/user/' + n).read() for n in os.listdir('/proc/sys/user')}"
    )
    bounds = await run(await make(launch), source)
    found = {name: int(bound) for name, bound in bounds.items() if name.endswith("_namespaces")}
    assert (len(found) >= 7, set(found.values())) == (True, {0})


@BOTH
async def test_only_five_descriptors_are_open(make: Make, launch: Launch) -> None:
    source = """
import os
answer = {}
for number in os.listdir("/proc/self/fd"):
    try:
        answer[number] = os.readlink("/proc/self/fd/" + number).split(":")[0]
    except OSError:
        pass  # the folder's own, gone by now
"""
    found = await run(await make(launch), source)
    assert found == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket", "4": "pipe"}


@BOTH
async def test_permits_can_be_taken_but_not_given_nor_made_to_block_us(make: Make, launch: Launch) -> None:
    source = """
import fcntl, os
answer = []
for attempt in (
    lambda: os.write(4, bytes(8)),
    lambda: os.open("/proc/self/fd/4", os.O_WRONLY | os.O_NONBLOCK),
    lambda: fcntl.fcntl(4, fcntl.F_SETFL, 0),
):
    try:
        attempt()
        answer.append("done")
    except OSError as error:
        answer.append(error.strerror)
"""
    sandbox = await make(launch)
    # Whoever is the same user outside may open the pipe anew: see SECURITY.md.
    opened = "Permission denied" if os.geteuid() == 0 else "done"
    assert await run(sandbox, source) == ["Bad file descriptor", opened, "done"]
    assert sandbox.permits is not None
    assert not os.get_blocking(sandbox.permits)


@BOTH
async def test_the_environment_is_the_launchs_and_nothing_else(make: Make, launch: Launch) -> None:
    assert await run(await make(launch), "import os; answer = dict(os.environ)") == ENVIRONMENT


@BOTH
async def test_the_first_process_is_ours_and_cannot_be_looked_into(make: Make, launch: Launch) -> None:
    source = """
import os
def tried(name):
    try:
        return bool(os.listdir(name) if name.endswith("fd") else open(name, "rb").read(1))
    except OSError as error:
        return error.errno
answer = [os.getpid(), os.getppid(), *[tried("/proc/1/" + name) for name in ("mem", "environ", "fd", "maps")]]
"""
    own, parent, *looks = await run(await make(launch), source)
    assert (own, parent) == (2, 1)
    assert set(looks) == {errno.ENOENT}  # it is not even listed


@BOTH
async def test_the_first_process_has_next_to_nothing_of_its_own(make: Make, launch: Launch) -> None:
    if not program():
        pytest.skip("no program of ours for this machine's processor: it stays an interpreter")
    sandbox = await make(launch)
    assert isinstance(sandbox, LeanSandbox)
    process = Path(f"/proc/{sandbox.traces.pid}")
    # The second process does not wait for it to become its program, nor for that to close descriptors.
    await until(lambda: (process / "comm").read_text().strip() == Path(FIRST).name)
    await until(lambda: not (process / "fd/4").exists())
    if os.geteuid() == 0:
        told = (line.split() for line in (process / "smaps_rollup").read_text().splitlines()[1:])
        assert sum(int(kb) for name, kb, _ in told if name.startswith("Private_")) < 100
    source = """
try:
    answer = open("/.first", "rb").read(1)
except OSError as error:
    answer = error.errno
"""
    assert await run(sandbox, source) == errno.EACCES


async def test_killing_everything_ends_neither_the_first_process_nor_the_host(make: Make) -> None:
    source = """
import os, signal
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP, signal.SIGSEGV):
    os.kill(1, number)
try:
    os.kill(-1, signal.SIGKILL)
except ProcessLookupError:
    pass
answer = os.getppid()
"""
    assert await run(await make(), source) == 1


@BOTH
async def test_the_filter_refuses_what_no_function_needs(make: Make, launch: Launch) -> None:
    refused = REFUSED.get(os.uname().machine)
    if refused is None:
        pytest.skip(f"the numbers of {os.uname().machine} are not in this test's table")
    answers = await asked(await make(launch), refused)
    assert {name: answer for name, answer in answers.items() if answer != "EPERM"} == {}


async def test_the_filter_does_not_know_what_libraries_fall_back_from(make: Make) -> None:
    answers = await asked(await make(), UNKNOWN)
    assert set(answers.values()) == {"ENOSYS"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="there is no such other way in on this processor")
@pytest.mark.parametrize(
    "code",
    ["b8 14000000 cd80 c3", "b8 27000040 0f05 c3"],
    ids=["as a 32-bit program", "with x32's numbers"],
)
async def test_a_system_call_of_a_foreign_architecture_is_death(make: Make, code: str) -> None:
    sandbox = await make()
    source = f"""
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex({code!r}))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""
    await order(sandbox, source)
    assert (await sandbox.ended).signal == signal.SIGSYS


async def test_threads_subprocesses_and_sockets_work_inside(make: Make) -> None:
    source = """
import os, socket, subprocess, threading
thread = threading.Thread(target=lambda: done.append(1))
done = []
thread.start(); thread.join()
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
pair = socket.socketpair()
answer = [done, subprocess.run(["/bin/echo", "hello"], stdout=subprocess.PIPE).stdout.decode()]
"""
    assert await run(await make(), source) == [[1], "hello\n"]


async def test_a_device_cannot_be_made(make: Make) -> None:
    with pytest.raises(Raised, match="PermissionError"):
        await run(await make(), "import os; os.mknod('/tmp/null', 0o20666, os.makedev(1, 3))")


async def test_devices_are_the_harmless_few(make: Make) -> None:
    source = "import os; answer = [sorted(os.listdir('/dev')), len(open('/dev/urandom', 'rb', 0).read(8))]"
    names = "fd full null random shm stderr stdin stdout urandom zero".split()
    assert await run(await make(), source) == [names, 8]


async def test_proc_tells_nothing_of_the_host_and_takes_nothing(make: Make) -> None:
    source = """
import os
def tried(name, flags):
    try:
        descriptor = os.open("/proc/" + name, flags)
        return len(os.read(descriptor, 10)) if flags == os.O_RDONLY else "opened"
    except OSError as error:
        return error.errno
answer = [
    [tried(name, os.O_RDONLY) for name in ("kallsyms", "keys", "interrupts", "timer_list", "kcore", "kmsg")],
    [tried(name, os.O_WRONLY) for name in (
        "sys/kernel/core_pattern", "sysrq-trigger", "self/oom_score_adj", "sys/vm/drop_caches")],
    sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
]
"""
    read, written, processes = await run(await make(), source)
    assert set(read) <= {0, errno.EACCES, errno.EPERM, errno.ENOENT}
    assert set(written) <= {errno.EROFS, errno.EACCES, errno.ENOENT}
    assert processes == [2]


async def test_a_sandbox_goes_first_when_the_machine_is_out_of_memory(make: Make) -> None:
    assert await run(await make(), "answer = int(open('/proc/self/oom_score_adj').read())") == 500


async def test_the_machine_has_another_name_inside_and_no_other_users(make: Make) -> None:
    source = "import os; answer = [os.uname().nodename, open('/etc/passwd').read().count(chr(10))]"
    assert await run(await make(), source) == ["sandbox", 2]


async def test_of_etc_only_what_programs_need_is_there(make: Make) -> None:
    source = "import os; answer = sorted(os.listdir('/etc'))"
    names = set(await run(await make(), source))
    assert names >= {"passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache"}
    assert not names & {"shadow", "ssh", "fstab", "machine-id", "crontab", "sudoers"}
    source = "import os; path = '/etc/resolv.conf'; answer = os.path.exists(path) and open(path).read()"
    named = await run(await make(), source) or ""
    assert [
        line for line in named.splitlines() if not line.startswith(("nameserver 198.1", "options "))
    ] == []


async def test_root_and_homes_of_the_host_are_not_there(make: Make) -> None:
    source = "import os; answer = [os.path.exists('/root'), os.listdir('/home'), os.listdir('/run')]"
    assert await run(await make(), source) == [False, [], []]


async def test_the_code_folder_is_shown_read_only(make: Make, folder: Path) -> None:
    (folder / "main.py").write_text("said = 'hello'")
    sandbox = await make(code=folder)
    source = f"import sys; sys.path.insert(0, {sandbox.code_path!r}); import main; answer = main.said"
    assert await run(sandbox, source) == "hello"
    with pytest.raises(Raised, match="Read-only file system"):
        await run(sandbox, f"open({sandbox.code_path + '/main.py'!r}, 'w')")


async def test_what_a_build_leaves_belongs_to_the_folders_owner(make: Make, folder: Path) -> None:
    owner = (64_000, 64_001) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(folder, *owner)
    sandbox = await make(EXECUTED, workspace=folder)
    path = f"{sandbox.workspace_path}/made"
    source = f"import os; open({path!r}, 'w').close(); os.symlink('/etc/shadow', {path + '.link'!r})"
    await run(sandbox, source)
    status = (folder / "made").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*owner, 0o644)
    assert await run(sandbox, f"import os; answer = os.stat({path!r}).st_uid") == 65534


@only_root
async def test_a_build_is_a_user_of_its_own_too(make: Make, folder: Path) -> None:
    os.chown(folder, 64_000, 64_001)
    assert await user_of(await make(EXECUTED, workspace=folder)) > 0x6FFF_FFFF


@pytest.fixture
def unmappable(folder: Path) -> Iterator[Path]:
    """A folder on a file system that cannot show its files as another user's."""
    mount("ramfs", str(folder), "ramfs", MS_NOSUID | MS_NODEV)
    yield folder
    umount(str(folder))


@only_root
async def test_where_users_cannot_be_mapped_a_build_is_the_folders_owner(
    make: Make, unmappable: Path
) -> None:
    os.chown(unmappable, 64_000, 64_001)
    sandbox = await make(EXECUTED, workspace=unmappable)
    await run(sandbox, f"open({sandbox.workspace_path + '/made'!r}, 'w').close()")
    status = (unmappable / "made").stat()
    assert (status.st_uid, status.st_gid, await user_of(sandbox)) == (64_000, 64_001, 64_000)
    await sandbox.destroy()


@only_root
async def test_a_build_is_never_root(make: Make, unmappable: Path) -> None:
    with pytest.raises(SandboxFailed, match="a build would be root"):
        await make(EXECUTED, workspace=unmappable)


async def test_only_a_build_reaches_the_hosts_network(make: Make) -> None:
    links = "[line.split(':')[0].strip() for line in open('/proc/self/net/dev').readlines()[2:]]"
    source = f"import os; answer = [os.readlink('/proc/self/ns/net'), {links}]"
    outside = os.readlink("/proc/self/ns/net")
    alone, inside = await run(await make(), source)
    assert (alone != outside, inside) == (True, ["lo"])
    assert (await run(await make(network=Network.HOST), source))[0] == outside


async def test_what_one_sandbox_binds_another_can_bind_too(make: Make) -> None:
    source = r"""
import socket
held = [socket.create_server(("0.0.0.0", 8080)), socket.socket(socket.AF_UNIX)]
held[1].bind("\0name")
__builtins__["held"] = held
answer = True
"""
    one, other = await make(), await make()
    assert [await run(one, source), await run(other, source)] == [True, True]


async def test_no_key_reaches_another_sandbox(make: Make) -> None:
    """Those of the user outside, of the session and of the process: none can be added, found or told of."""
    calls = {
        "x86_64": [
            ["add_key", 248, 0, 0, 0, 0, -4],
            ["request_key", 249, 0, 0, 0, -4],
            *(["keyctl " + str(option), 250, option, -4, 0, 0, 0] for option in range(32)),
        ]
    }.get(os.uname().machine)
    if calls is None:
        pytest.skip(f"the numbers of {os.uname().machine} are not in this test's table")
    sandbox = await make()
    assert set((await asked(sandbox, calls)).values()) == {"EPERM"}  # type: ignore[arg-type]
    assert await run(sandbox, "answer = open('/proc/keys').read() + open('/proc/key-users').read()") == ""


async def test_scratch_is_bounded_in_bytes_and_in_files(make: Make) -> None:
    sandbox = await make(scratch_mb=2, scratch_inodes=100)
    source = """
import os
answer = []
for folder in ("/tmp", "/dev/shm"):
    try:
        with open(folder + "/file", "wb", 0) as file:
            while file.write(bytes(65536)):
                pass
    except OSError as error:
        answer.append(error.errno)
    answer.append(os.path.getsize(folder + "/file") // 1024)
    os.unlink(folder + "/file")
try:
    for number in range(1000):
        open("/tmp/%d" % number, "w").close()
except OSError as error:
    answer += [error.errno, number]
"""
    *spaces, full, files = await run(sandbox, source)
    # A file at its own limit (EFBIG) or a file system at its (ENOSPC): they are the same size here.
    assert [number in (errno.ENOSPC, errno.EFBIG) for number in spaces[::2]] == [True, True]
    assert max(spaces[1::2]) * 1024 <= 2 * MEBIBYTE
    assert (full, files < 100) == (errno.ENOSPC, True)


async def test_interpreters_of_a_home_are_shown_without_the_rest_of_it(make: Make) -> None:
    source = "import sys, os; answer = [sys.prefix, os.path.exists(os.path.dirname(sys.prefix) + '/.bashrc')]"
    prefix, has_home = await run(await make(), source)
    assert (prefix in ("/opt/python", "/usr"), has_home) == (True, False)
