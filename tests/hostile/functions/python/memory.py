"""Attacks on memory."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import sys
import threading
import time

from trying import breaches

MEBIBYTE = 1 << 20
libc = ctypes.CDLL(None, use_errno=True)


def takes_all(event):
    held = []
    while True:
        held.append(bytearray(os.urandom(4096) * 1024))


def takes_all_in_many_processes(event):
    for _ in range(6):
        if os.fork() == 0:
            takes_all(event)
    takes_all(event)


def reserves_without_touching(event):
    try:
        mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    except OSError:
        pass
    return []


def fills_shared_memory(event):
    return _fill("/dev/shm", "/tmp")


def _fill(*folders):
    written = 0
    for folder in folders:
        for number in range(100):
            try:
                with open(f"{folder}/{number}", "wb", buffering=0) as file:
                    while True:
                        written += file.write(bytes(MEBIBYTE))
            except OSError:
                pass
    return [] if written < 200 * MEBIBYTE else [f"wrote {written} bytes"]


def fills_sealed_memory_files(event):
    while True:
        file = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
        os.write(file, os.urandom(4 * MEBIBYTE))
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, 0xF)


def fills_a_shared_mapping(event):
    area = mmap.mmap(-1, 1 << 30)
    for at in range(0, 1 << 30, 4096):
        area[at] = 1


def reads_many_files(event):
    """The page cache of others' files is no memory of its own."""
    left = 160 * MEBIBYTE
    for place, _, names in os.walk("/usr"):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path):
                with open(path, "rb", buffering=0) as file:
                    while data := file.read(MEBIBYTE):
                        left -= len(data)
            if left < 0:
                return []
    return []


def locks_all_memory(event):
    area = mmap.mmap(-1, 16 * MEBIBYTE)
    start = ctypes.c_char.from_buffer(area)
    through = [] if libc.mlock(ctypes.byref(start), 16 * MEBIBYTE) else ["locked 16 MB"]
    del start
    return through + ([] if libc.mlockall(3) else ["locked all"])


def takes_huge_pages(event):
    try:
        area = mmap.mmap(-1, 256 * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    except OSError:
        return []
    for at in range(0, 256 * MEBIBYTE, 4096):
        area[at] = 1
    return ["256 MB of huge pages"]


def recurses_without_end(event):
    sys.setrecursionlimit(2**31 - 1)
    threading.stack_size(0)

    def deeper(value):
        return repr([deeper(value)])

    return deeper([])


def nests_without_end(event):
    """A repr that recurses in C."""
    sys.setrecursionlimit(2**31 - 1)
    nest = []
    for _ in range(1_000_000):
        nest = [nest]
    return [str(len(repr(nest)))]


def fills_pipes(event):
    """Memory that is the kernel's: what waits in pipes."""
    held = []
    try:
        while True:
            reading, writing = os.pipe()
            held += [reading, writing]
            try:
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, MEBIBYTE)
            except OSError:
                pass
            os.set_blocking(writing, False)
            while os.write(writing, bytes(65536)):
                pass
    except BlockingIOError:
        return _go_on_filling(held)
    except OSError:
        return []


def _go_on_filling(held):
    while True:
        try:
            reading, writing = os.pipe()
        except OSError:
            return []
        held += [reading, writing]
        os.set_blocking(writing, False)
        try:
            while os.write(writing, bytes(65536)):
                pass
        except OSError:
            pass


def fills_sockets(event):
    held = []
    while True:
        try:
            pair = socket.socketpair()
        except OSError:
            return []
        held.append(pair)
        pair[0].setblocking(False)
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        try:
            while pair[0].send(bytes(65536)):
                pass
        except OSError:
            pass


def a_child_takes_all(event):
    """Who answers is whole, whatever happened to a child."""
    child = os.fork()
    if child == 0:
        takes_all(event)
    os.waitpid(child, 0)
    return []


def guards_itself_against_the_killer(event):
    through = breaches({"oom_score_adj": lambda: _write("/proc/self/oom_score_adj", "-1000")})
    return through + breaches({"of the first": lambda: _write("/proc/1/oom_score_adj", "-1000")})


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def touches_page_tables_only(event):
    """One byte in each two megabytes: little memory, many tables."""
    area = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    libc.madvise(ctypes.byref(ctypes.c_char.from_buffer(area)), ctypes.c_size_t(64 << 30), 15)
    for at in range(0, 64 << 30, 2 * MEBIBYTE):
        area[at] = 1
    return []


def system_v_segments(event):
    segment = libc.shmget(0, ctypes.c_size_t(512 * MEBIBYTE), 0o1600)
    if segment < 0:
        return []
    libc.shmat.restype = ctypes.c_void_p
    start = libc.shmat(segment, None, 0)
    ctypes.memset(start, 1, 512 * MEBIBYTE)
    return ["512 MB of shared memory"]


def asks_for_names_that_are_not(event):
    """Each miss is remembered by the kernel."""
    give_up = time.monotonic() + 1
    number = 0
    while time.monotonic() < give_up:
        number += 1
        for folder in ("/usr/lib", "/tmp", "/app/function"):
            os.path.exists(f"{folder}/{number}-{'x' * 200}")
    return []


def many_threads_with_large_stacks(event):
    threading.stack_size(512 * MEBIBYTE)
    stop = threading.Event()
    threads = []
    try:
        for _ in range(200):
            threads.append(threading.Thread(target=stop.wait, daemon=True))
            threads[-1].start()
    except (RuntimeError, MemoryError):
        pass
    stop.set()
    return []


def a_value_that_never_ends(event):
    class Endless(dict):
        def __bool__(self):
            return True

        def items(self):
            number = 0
            while True:
                number += 1
                yield str(number), "x" * 1000

    return Endless(a=1)
