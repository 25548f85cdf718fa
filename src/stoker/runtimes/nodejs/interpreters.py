"""Finds the real Node.js binaries of this machine: never a version manager's shim.

The version is read from a folder's name or from the headers that come with Node.js; only where there
is neither is the binary asked.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from stoker.runtimes.contract import Interpreter, parse_version

OLDEST = (16,)

_NVM_NAME = re.compile(r"v(\d+\.\d+\.\d+)")
_ANSWER = re.compile(r"v(\d+\.\d+\.\d+)\s*")
_HEADER_LINE = re.compile(r"^#define NODE_(MAJOR|MINOR|PATCH)_VERSION (\d+)$", re.MULTILINE)
_ELF = b"\x7fELF"


def find_interpreters(environment: Mapping[str, str]) -> list[Interpreter]:
    """Every usable interpreter, newest first; of two of one version, the one first on `PATH`."""
    found: dict[str, Interpreter] = {}
    for interpreter in (*_find_on_path(environment), *_find_of_nvm(environment)):
        if parse_version(interpreter.version) >= OLDEST:
            found.setdefault(interpreter.version, interpreter)
    return sorted(found.values(), key=lambda each: parse_version(each.version), reverse=True)


def _find_on_path(environment: Mapping[str, str]) -> Iterator[Interpreter]:
    folders = [*environment.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin"]
    for folder in dict.fromkeys(folder for folder in folders if folder.startswith("/")):
        binary = Path(folder, "node").resolve()
        if _is_binary(binary):
            prefix = binary.parent.parent
            version = _read_header(prefix) or _ask(binary)
            if version:
                yield Interpreter(version=version, binary=binary, prefix=prefix)


def _find_of_nvm(environment: Mapping[str, str]) -> Iterator[Interpreter]:
    home = Path(environment.get("HOME", "/nonexistent"))
    folder = Path(environment.get("NVM_DIR", home / ".nvm")) / "versions" / "node"
    for prefix in sorted(folder.glob("v*")):
        match = _NVM_NAME.fullmatch(prefix.name)
        binary = prefix / "bin" / "node"
        if match and _is_binary(binary):
            yield Interpreter(version=match[1], binary=binary.resolve(), prefix=prefix.resolve())


def _is_binary(path: Path) -> bool:
    """Whether this is a program and not a script that looks for one."""
    try:
        with path.open("rb") as file:
            return file.read(4) == _ELF and os.access(path, os.X_OK)
    except OSError:
        return False


def _read_header(prefix: Path) -> str:
    try:
        text = (prefix / "include" / "node" / "node_version.h").read_text()
    except OSError:
        return ""
    numbers = dict(_HEADER_LINE.findall(text))
    return ".".join(numbers[part] for part in ("MAJOR", "MINOR", "PATCH")) if len(numbers) == 3 else ""


def _ask(binary: Path) -> str:
    """Run it once; one that does not even answer this is passed over."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    match = _ANSWER.fullmatch(answer.stdout)
    return match[1] if match else ""
