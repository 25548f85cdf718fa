"""Attacks with processes and signals."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time

from trying import breaches

libc = ctypes.CDLL(None, use_errno=True)
DISCLOSING = ("environ", "mem", "maps", "fd/0", "root/etc", "cwd/x", "exe", "stack", "auxv", "syscall", "io")


def fork_bomb(event):
    while True:
        try:
            os.fork()
        except OSError:
            pass


def fork_bomb_of_the_shell(event):
    subprocess.run(["/bin/sh", "-c", "b() { b | b & }; b; wait"], check=False)
    return []


def thread_bomb(event):
    stop = threading.Event()
    try:
        while True:
            threading.Thread(target=stop.wait, daemon=True).start()
    except RuntimeError:
        return []


def zombie_factory(event):
    """Never waited for; the limit is met, and nothing else happens."""
    try:
        while True:
            if os.fork() == 0:
                os._exit(0)
    except OSError:
        return []


def orphan_factory(event):
    """Five times as many as there may be, one after another: reaped, or it could not go on."""
    for _ in range(320):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
    return []


def executes_what_cannot_be(event):
    with open(os.environ["TMPDIR"] + "/script", "wb") as file:
        file.write(b"\x7fELF\x02\x01\x01\x00 not really")
    os.chmod(file.name, 0o755)
    attempts = {
        path: lambda path=path: subprocess.run([path], check=False)
        for path in (
            "/nowhere",
            "/usr",
            "/etc/passwd",
            file.name,
        )
    }
    return breaches(attempts)


def becomes_another_program(event):
    os.execv("/bin/true", ["true"])


def becomes_another_program_that_stays(event):
    os.execv("/bin/sleep", ["sleep", "1000000"])


def becomes_another_program_with_the_channel(event):
    """Which then speaks in its own way."""
    os.set_inheritable(3, True)
    os.execv("/bin/sh", ["sh", "-c", "cat /dev/zero >&3"])


def dumps_core(event):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass
    os.abort()


def exits(event):
    os._exit(event["code"])


def leaves_politely(event):
    import atexit

    atexit.register(time.sleep, 1e9)
    threading.Thread(target=time.sleep, args=(1e9,)).start()
    sys.exit(event["code"])


def signals_itself(event):
    signal.signal(event["signal"], signal.SIG_DFL) if event["signal"] not in (9, 19, 32, 33) else None
    os.kill(os.getpid(), event["signal"])
    time.sleep(1e9)


def signals_the_first(event):
    for number in range(1, 65):
        try:
            os.kill(1, number)
        except OSError:
            pass
    return []


def signals_its_parent(event):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1e9)


def kills_everybody(event):
    if os.fork() == 0:
        time.sleep(1e9)
    os.kill(-1, signal.SIGKILL)
    return []


def a_child_kills_it(event):
    parent = os.getpid()
    if os.fork() == 0:
        os.kill(parent, signal.SIGKILL)
        os._exit(0)
    time.sleep(1e9)


def looks_into_the_first(event):
    through = []
    for name in DISCLOSING:
        try:
            with open(f"/proc/1/{name}", "rb") as file:
                if file.read(1):
                    through.append(name)
        except OSError:
            pass
    return through + breaches(
        {"fds": lambda: os.listdir("/proc/1/fd"), "link": lambda: os.readlink("/proc/1/fd/5")}
    )


def bounds_the_first(event):
    """By the rules it may: the first process is of the same user. Then it is its own end."""
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_CPU):
        try:
            resource.prlimit(1, kind, (0, 0))
        except OSError:
            pass
    os._exit(5)


def hides_from_sight(event):
    libc.prctl(4, 0, 0, 0, 0)
    libc.prctl(15, b"stoker", 0, 0, 0)
    libc.prctl(36, 1, 0, 0, 0)
    libc.prctl(1, 0, 0, 0, 0)
    os.setsid() if os.getsid(0) != os.getpid() else None
    time.sleep(1e9)


def locks_itself_in(event):
    """The strict mode of seccomp: only read, write and exit; everything else is its end."""
    libc.prctl(22, 1, 0, 0, 0)
    time.sleep(1e9)


def closes_everything_and_stays(event):
    os.closerange(0, 1024)
    time.sleep(1e9)


def closes_everything_and_leaves(event):
    os.closerange(0, 1024)
    os._exit(7)


def limits_itself_to_nothing(event):
    for kind in range(16):
        try:
            resource.setrlimit(kind, (0, 0))
        except (OSError, ValueError):
            pass
    return []


def takes_a_terminal(event):
    through = breaches(
        {
            name: lambda name=name: os.open(name, os.O_RDWR)
            for name in ("/dev/tty", "/dev/console", "/dev/tty1")
        }
    )
    libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)
    for request in (0x5412, 0x541C, 0x5412 + (1 << 32), 0x541C + (1 << 32)):
        if libc.ioctl(0, request, b"\3") == 0:
            through.append(hex(request))
    return through


def argument_list_without_end(event):
    try:
        subprocess.run(["/bin/true", *["x" * 100_000] * 1000], check=False)
    except OSError:
        pass
    try:
        subprocess.run(["/bin/true"], env={f"V{number}": "x" * 1000 for number in range(5000)}, check=False)
    except OSError:
        pass
    return []


def dies_in_the_midst_of_a_frame(event):
    os.write(3, b"\x00\x00\x10\x00\x83")
    os._exit(6)
