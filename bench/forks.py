"""Forks the image of a zygote and times it; run by `probes.zygote_forks` with the zygote's own interpreter.

Usage: python -I -S forks.py SERVER_FILE COUNT; prints the nanoseconds of each fork, from the call to the
one byte that the child writes; then the forks, exits and waits per second on all processors together; then
the kilobytes that a bare child has for itself alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time


def one() -> int:
    """A bare fork whose child writes one byte and ends."""
    read, write = os.pipe()
    began = time.perf_counter_ns()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"x")
        os._exit(0)
    os.read(read, 1)
    took = time.perf_counter_ns() - began
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
    return took


def rate(count: int) -> float:
    """So many forks on every processor, all processors at the same time."""
    processors = len(os.sched_getaffinity(0))
    began = time.perf_counter()
    workers = [worker(count) for _ in range(processors)]
    for pid in workers:
        os.waitpid(pid, 0)
    return processors * count / (time.perf_counter() - began)


def worker(count: int) -> int:
    """A process that forks, one child after the other."""
    pid = os.fork()
    if pid:
        return pid
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    os._exit(0)


def unique_kb() -> int:
    """What a child has that only waits, and that nobody shares with it."""
    told, tell = os.pipe()
    wait, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(tell, b"x")
        os.read(wait, 1)
        os._exit(0)
    os.read(told, 1)
    with open(f"/proc/{pid}/smaps_rollup") as file:
        kb = sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
    os.close(end)
    os.waitpid(pid, 0)
    return kb


def main() -> None:
    file, count = sys.argv[1], int(sys.argv[2])
    spec = importlib.util.spec_from_file_location("server", file)
    assert spec is not None and spec.loader is not None
    sys.path.insert(0, os.path.dirname(file))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    print(*(one() for _ in range(count)))
    print(rate(count))
    print(unique_kb())


if __name__ == "__main__":
    main()
