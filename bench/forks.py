"""Forks an image and times it; run with the zygotes' own interpreter, without walls.

* `python -I -S forks.py COUNT image SERVER_FILE`, the image of a zygote: prints the nanoseconds of each fork,
  from the call to the one byte that the child writes; then the forks, exits and waits per second on all
  processors together; then the kilobytes that a bare child has for itself alone.
* `python -I -S -B forks.py COUNT imports CODE DEPENDENCIES MODULE...`: prints the nanoseconds that the
  imports take, then those of each fork.
"""

from __future__ import annotations

import gc
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


def of_image(count: int, server_file: str) -> None:
    spec = importlib.util.spec_from_file_location("server", server_file)
    assert spec is not None and spec.loader is not None
    sys.path.insert(0, os.path.dirname(server_file))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    print(*(one() for _ in range(count)))
    print(rate(count))
    print(unique_kb())


def of_imports(count: int, code: str, dependencies: str, *modules: str) -> None:
    sys.path[:0] = [code, dependencies]
    began = time.perf_counter_ns()
    for module in modules:
        __import__(module)
    print(time.perf_counter_ns() - began)
    gc.collect()
    gc.freeze()
    print(*(one() for _ in range(count)))


if __name__ == "__main__":
    if sys.argv[2] == "image":
        of_image(int(sys.argv[1]), sys.argv[3])
    else:
        of_imports(int(sys.argv[1]), *sys.argv[3:])
