"""Attacks with files."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import stat
import time

from trying import breaches

PLACES = (
    "/",
    "/etc",
    "/usr",
    "/usr/lib",
    "/dev",
    "/app",
    "/app/function",
    "/opt",
    "/run",
    "/var",
    "/home",
    "/proc",
    "/sys",
)


def _scratch():
    return os.environ["TMPDIR"]


def writes_until_it_is_full(event):
    written, number = 0, 0
    while True:
        number += 1
        try:
            with open(f"{_scratch()}/{number}", "wb", buffering=0) as file:
                for _ in range(16):
                    written += file.write(bytes(1 << 20))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return [] if written <= 64 << 20 else [f"wrote {written} bytes"]


def writes_one_file_without_end(event):
    written = 0
    try:
        with open(f"{_scratch()}/one", "wb", buffering=0) as file:
            while True:
                written += file.write(bytes(1 << 20))
    except OSError:
        return [] if written <= 64 << 20 else [f"wrote {written} bytes"]


def sparse_file(event):
    with open(f"{_scratch()}/sparse", "wb") as file:
        return breaches(
            {
                "truncate": lambda: os.ftruncate(file.fileno(), 100 << 30),
                "write far out": lambda: os.pwrite(file.fileno(), b"x", 100 << 30),
                "fallocate": lambda: os.posix_fallocate(file.fileno(), 0, 100 << 30),
            }
        )


def a_million_files(event):
    try:
        for number in range(1_000_000):
            os.mknod(f"{_scratch()}/{number}")
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        return []
    return ["a million files"]


def a_chain_of_folders(event):
    here = os.open(_scratch(), os.O_RDONLY)
    name = "d" * 200
    for _ in range(4096):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    return []


def names_that_are_no_text(event):
    top = os.fsencode(_scratch())
    for name in (
        b"\xff\xfe",
        b"line\nbreak",
        b"\x1b[31mred",
        b"x" * 255,
        b"-rf",
        b" ",
        b"\xed\xa0\x80",
        b"*",
    ):
        os.mkdir(top + b"/" + name)
        os.symlink(b"../" + name, top + b"/" + name + b"/" + name)
    return []


def closes_its_folders(event):
    """Mode 000 from the inside out, on everything that is its own."""
    for depth in range(1, 10):
        path = _scratch() + "/closed" * depth
        os.mkdir(path)
        with open(path + "/file", "w") as file:
            file.write("x")
    for depth in range(9, 0, -1):
        path = _scratch() + "/closed" * depth
        os.chmod(path + "/file", 0)
        os.chmod(path, 0)
    try:
        os.chmod(_scratch(), 0)
    except OSError:
        pass
    return []


def things_that_are_no_files(event):
    top = _scratch()
    os.mkfifo(f"{top}/pipe")
    socket.socket(socket.AF_UNIX).bind(f"{top}/socket")
    os.symlink("loop", f"{top}/loop")
    os.symlink("/proc/self/environ", f"{top}/environ")
    os.symlink("/", f"{top}/root")
    os.mkdir(f"{top}/a")
    os.symlink("../a", f"{top}/a/a")
    return breaches(
        {
            "device": lambda: os.mknod(f"{top}/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
            "memory": lambda: os.mknod(f"{top}/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)),
        }
    )


def opens_a_pipe_that_nobody_writes(event):
    os.mkfifo(f"{_scratch()}/pipe")
    os.open(f"{_scratch()}/pipe", os.O_RDONLY)


def writes_outside(event):
    attempts = {
        f"file in {place}": lambda place=place: os.close(os.open(f"{place}/x", os.O_CREAT | os.O_WRONLY))
        for place in PLACES
    }
    attempts |= {f"mode of {place}": lambda place=place: os.chmod(place, 0o777) for place in PLACES}
    attempts |= {f"link in {place}": lambda place=place: os.symlink("x", f"{place}/y") for place in PLACES}
    attempts |= {f"name of {place}": lambda place=place: os.rename(place, "/tmp/z") for place in PLACES}
    return breaches(attempts)


def changes_its_own_code(event):
    own = os.path.abspath(__file__)
    folder = os.path.dirname(own)
    reading = os.open(own, os.O_RDONLY)
    again = f"/proc/self/fd/{reading}"
    return breaches(
        {
            "write": lambda: os.open(own, os.O_WRONLY),
            "write again": lambda: os.open(again, os.O_WRONLY),
            "truncate": lambda: os.truncate(own, 0),
            "mode": lambda: os.chmod(own, 0o777),
            "mode by descriptor": lambda: os.fchmod(reading, 0o777),
            "owner": lambda: os.chown(own, os.getuid(), os.getgid()),
            "times": lambda: os.utime(own),
            "attribute": lambda: os.setxattr(own, "user.x", b"x"),
            "remove": lambda: os.unlink(own),
            "folder": lambda: os.chmod(folder, 0o777),
            "hard link": lambda: os.link(own, "/tmp/own.py"),
            "lease": lambda: fcntl.fcntl(reading, fcntl.F_SETLEASE, fcntl.F_WRLCK),
            "allocate": lambda: os.posix_fallocate(reading, 0, 1 << 20),
        }
    )


def copies_without_end(event):
    """In the kernel, where only a kill reaches."""
    with open(f"{_scratch()}/source", "wb") as file:
        file.write(bytes(32 << 20))
    reading, writing = os.open(f"{_scratch()}/source", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
    while True:
        os.sendfile(writing, reading, 0, 32 << 20)


def renames_and_links_without_end(event):
    os.mkdir(f"{_scratch()}/a")
    give_up = time.monotonic() + 0.5
    while time.monotonic() < give_up:
        os.rename(f"{_scratch()}/a", f"{_scratch()}/b")
        os.symlink("b", f"{_scratch()}/a")
        os.unlink(f"{_scratch()}/a")
        os.rename(f"{_scratch()}/b", f"{_scratch()}/a")
    return []


def attributes_and_lists(event):
    """Extended attributes and access lists on all that can be written."""
    with open(f"{_scratch()}/file", "w") as file:
        number = 0
        try:
            for number in range(100_000):
                os.setxattr(file.fileno(), f"user.{number}", b"x" * 1000)
        except OSError:
            pass
    deny = b"\x02\x00\x00\x00" + b"\x01\x00\x00\x00\xff\xff\xff\xff" + b"\x02\x00\x00\x00\x00\x00\x00\x00"
    deny += (
        b"\x04\x00\x00\x00\xff\xff\xff\xff\x10\x00\x00\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
    )
    for kind in ("access", "default"):
        try:
            os.setxattr(_scratch(), f"system.posix_acl_{kind}", deny)
        except OSError:
            pass
    return [] if number < 99_999 else ["attributes without end"]


def watches_everything(event):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init()
    for place, _, _ in itertools.islice(os.walk("/usr"), 3000):
        if libc.inotify_add_watch(watcher, place.encode(), 0xFFF) < 0:
            break
    return []
