"""S2: functions whose imports take long, and what a bare interpreter needs for the same.

Run with the folders of modules and dependencies and the modules' names it is that interpreter's program: it
prints the microseconds of the import, then those of forks. Without walls, on the packages of the very build
that is called: the least they can cost.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

HEAVY = ("numpy", "pandas", "sklearn.linear_model")
REQUIREMENTS = "numpy\npandas\nscikit-learn\n"
HANDLER = """
{imports}

def lambda_handler(event, context):
    return {{}}
"""
# What small functions are commonly made of: requirements, and the modules that are imported of them.
SETS = (
    ("numpy", "numpy"),
    ("requests", "requests"),
    ("pandas", "pandas"),
    ("pydantic", "pydantic"),
    ("jinja2 markdown", "jinja2 markdown"),
    ("sqlalchemy", "sqlalchemy sqlalchemy.orm"),
    ("pillow", "PIL.Image"),
    ("httpx", "httpx"),
    ("flask", "flask"),
    ("pyyaml jsonschema", "yaml jsonschema"),
)
ZIPF = 1.5
FORKS = 60
READY_S = 60.0


def source(modules: tuple[str, ...]) -> str:
    return HANDLER.format(imports="\n".join(f"import {module}" for module in modules))


def of_bare_interpreter(binary: Path, code: Path, modules: tuple[str, ...]) -> tuple[float, list[float]]:
    """Microseconds of the import, and of forks after it."""
    command = [str(binary), "-I", "-S", "-B", __file__, str(code), str(code / ".stoker/deps"), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported, forks = done.stdout.splitlines()
    return float(imported), [float(word) for word in forks.split()]


def picks(count: int, seed: int = 1) -> list[int]:
    """Which set each call is of: the first most often, after Zipf."""
    weights = [1 / rank**ZIPF for rank in range(1, len(SETS) + 1)]
    return random.Random(seed).choices(range(len(SETS)), weights, k=count)


def fork_us() -> float:
    reading, writing = os.pipe()
    began = time.perf_counter_ns()
    child = os.fork()
    if child == 0:
        os.write(writing, b"x")
        os._exit(0)
    os.read(reading, 1)
    took = (time.perf_counter_ns() - began) / 1000
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    return took


def main() -> None:
    folders, modules = sys.argv[1:3], sys.argv[3:]
    sys.path[:0] = folders
    began = time.perf_counter_ns()
    for module in modules:
        __import__(module)
    print((time.perf_counter_ns() - began) / 1000)
    import gc

    gc.collect()
    gc.freeze()
    print(*(fork_us() for _ in range(FORKS)))


if __name__ == "__main__":
    main()
