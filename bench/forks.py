"""Forks the image of a zygote and times it; run by `probes.zygote_forks` with the zygote's own interpreter.

Usage: python -I -S forks.py SERVER_FILE COUNT; prints the nanoseconds of each fork, from the call to the
one byte that the child writes, and then the forks, exits and waits per second on one processor.
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
    began = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return count / (time.perf_counter() - began)


def main() -> None:
    file, count = sys.argv[1], int(sys.argv[2])
    spec = importlib.util.spec_from_file_location("server", file)
    assert spec is not None and spec.loader is not None
    sys.path.insert(0, os.path.dirname(file))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    print(*(one() for _ in range(count)))
    print(rate(count))


if __name__ == "__main__":
    main()
