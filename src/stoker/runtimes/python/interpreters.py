"""Finds the real interpreters of this machine: never a shim, which would start several times slower.

Where a folder's name tells the version it is believed; that the interpreter is what it says, its
HELLO tells. So a node with ten of them starts none to learn their versions.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from stoker.runtimes.contract import Interpreter, parse_version

OLDEST = (3, 8)
SYSTEM_FOLDERS = (Path("/usr/bin"), Path("/usr/local/bin"))

_SYSTEM_NAME = re.compile(r"python3\.\d+")
_PYENV_NAME = re.compile(r"(3\.\d+\.\d+)")
_UV_NAME = re.compile(r"cpython-(3\.\d+\.\d+)-.*")
_ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])), sys.base_prefix)"


def find_own() -> Interpreter:
    """The interpreter this node runs on, seen through any virtual environment."""
    binary = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    version = ".".join(map(str, sys.version_info[:3]))
    return Interpreter(version=version, binary=binary, prefix=Path(sys.base_prefix).resolve())


def find_interpreters(environment: Mapping[str, str]) -> list[Interpreter]:
    """Every usable interpreter, newest first; of two of one version the node's own, then the system's."""
    found = {(own := find_own()).version: own}
    for interpreter in (*_find_in_system(own.binary), *_find_in_folders(environment)):
        if parse_version(interpreter.version)[:2] >= OLDEST:
            found.setdefault(interpreter.version, interpreter)
    return sorted(found.values(), key=lambda each: parse_version(each.version), reverse=True)


def _find_in_system(own: Path) -> Iterator[Interpreter]:
    for folder in SYSTEM_FOLDERS:
        for name in _list(folder):
            binary = (folder / name).resolve()
            if _SYSTEM_NAME.fullmatch(name) and binary != own and _is_program(binary):
                yield from _ask(binary)


def _ask(binary: Path) -> Iterator[Interpreter]:
    """Run it once; one that does not even answer this is passed over."""
    try:
        answer = subprocess.run(
            [binary, "-I", "-S", "-c", _ASK], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return
    version, _, prefix = answer.stdout.strip().partition(" ")
    yield Interpreter(version=version, binary=binary, prefix=Path(prefix))


def _find_in_folders(environment: Mapping[str, str]) -> Iterator[Interpreter]:
    """Those of pyenv and uv, each in a folder that is named after its version."""
    home = Path(environment.get("HOME", "/nonexistent"))
    pyenv = Path(environment.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    data = Path(environment.get("XDG_DATA_HOME", home / ".local" / "share"))
    uv = Path(environment.get("UV_PYTHON_INSTALL_DIR", data / "uv" / "python"))
    for folder, pattern in ((pyenv, _PYENV_NAME), (uv, _UV_NAME)):
        for name in _list(folder):
            match = pattern.fullmatch(name)
            if match:
                yield from _look_into((folder / name).resolve(), match[1])


def _look_into(prefix: Path, version: str) -> Iterator[Interpreter]:
    binary = prefix / "bin" / ("python" + version.rpartition(".")[0])
    if _is_program(binary):
        yield Interpreter(version=version, binary=binary.resolve(), prefix=prefix)


def _list(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
