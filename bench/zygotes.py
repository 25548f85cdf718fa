"""S2: functions whose imports take long, and what a bare interpreter needs for the same.

The bare one has no walls, and the packages of the very build that is called: the least they can cost.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from bench.probes import FORKS

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
FORK_COUNT = 60
READY_S = 60.0


def source(modules: tuple[str, ...]) -> str:
    return HANDLER.format(imports="\n".join(f"import {module}" for module in modules))


def of_bare_interpreter(binary: Path, code: Path, modules: tuple[str, ...]) -> tuple[float, list[float]]:
    """Microseconds of the import, and of forks after it."""
    command = [str(binary), "-I", "-S", "-B", str(FORKS), str(FORK_COUNT), "imports"]
    command += [str(code), str(code / ".stoker/deps"), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported, forks = done.stdout.splitlines()
    return int(imported) / 1000, [int(word) / 1000 for word in forks.split()]


def picks(count: int, seed: int = 1) -> list[int]:
    """Which set each call is of: the first most often, after Zipf."""
    weights = [1 / rank**ZIPF for rank in range(1, len(SETS) + 1)]
    return random.Random(seed).choices(range(len(SETS)), weights, k=count)
