"""A root file system of one interpreter, made of this machine's files: no image is fetched from anywhere."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from bench.probes import interpreter

NO_OP = "def lambda_handler(event, context):\n    return {}\n"
"""The function that everybody runs."""


def command() -> list[str]:
    """Runs the no-op once, and tells what it returned."""
    return [str(interpreter()[0]), "-I", "-S", "-c", f"{NO_OP}print(lambda_handler({{}}, None))"]


def write(path: Path) -> None:
    """A tar archive of the newest interpreter this machine has, and what it needs."""
    python = interpreter()[0]
    with tarfile.open(path, mode="w") as archive:
        for file in [python, *_libraries(python)]:
            archive.add(file.resolve(), str(file))
        archive.add(_standard_library(python), filter=_without_packages)


def unpack(folder: Path) -> Path:
    """The same as a folder below this one, with places for what is mounted."""
    write(folder / "image.tar")
    root = folder / "rootfs"
    for place in ("dev", "proc", "sys", "tmp"):
        (root / place).mkdir(parents=True)
    subprocess.run(["tar", "-xf", folder / "image.tar", "-C", root], check=True)
    return root


def _libraries(python: Path) -> list[Path]:
    said = subprocess.run(["ldd", python], capture_output=True, text=True, check=True).stdout
    return [Path(word) for word in said.split() if word.startswith("/")]


def _standard_library(python: Path) -> str:
    code = "import os; print(os.path.dirname(os.__file__))"
    return subprocess.run(
        [python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def _without_packages(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    is_ballast = member.name.endswith(("/test", "/site-packages", "/dist-packages", "/idlelib", "/tkinter"))
    return None if is_ballast else member
