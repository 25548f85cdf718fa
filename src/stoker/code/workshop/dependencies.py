"""Installs what a function declares and does not bring along, and compiles its bytecode.

Dependencies that lie in the package already are used as they are: a requirement whose distribution
or module is beside the code is not installed again. Everything else is pip's and npm's business; when
they fail, their last lines are the error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

PYTHON_FOLDER = os.path.join(".stoker", "deps")
LAST_LINES = 15
LAST_CHARACTERS = 2000
MAX_DECLARATION_BYTES = 1024 * 1024
FILTERED = ".stoker-requirements.txt"

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:$|[\[<>=!~;@(,\s])")
_SECRET = re.compile(r"://[^/\s@]+@")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ToolFailed(Exception):
    """An installer could not do its work; its last lines."""


@dataclass(frozen=True)
class Place:
    """Where one function is built."""

    workspace: str
    root: str
    runtime: str
    version: str
    code_path: str
    """Where calls will see the folder."""

    def tool(self) -> str:
        """The function's own interpreter, as the sandbox sees it."""
        return os.environ.get(f"STOKER_TOOL_{self._name()}") or self._own()

    def _name(self) -> str:
        return re.sub(r"[^A-Z0-9]", "_", f"{self.runtime}_{self.version}".upper())

    def _own(self) -> str:
        if self.runtime == "python" and self.version == ".".join(map(str, sys.version_info[:3])):
            return sys.executable
        raise ToolFailed(f"the workshop has no {self.runtime} {self.version}")

    def environment(self) -> dict[str, str]:
        """The sandbox's, with room for the tools to write in and the interpreter's own libraries."""
        made = {name: os.path.join(self.workspace, name.lower()) for name in ("HOME", "TMPDIR")}
        for folder in made.values():
            os.makedirs(folder, 0o755, exist_ok=True)
        inside = {"PATH": os.defpath, **os.environ, **made}
        libraries = inside.pop(f"STOKER_LIBS_{self._name()}", "")
        inside.pop("LD_LIBRARY_PATH", None)  # of the workshop's own interpreter, perhaps another one
        return inside | ({"LD_LIBRARY_PATH": libraries} if libraries else {})


def _run(argv: list[str], place: Place, **more: str) -> None:
    """Run a tool to its end. Raises `ToolFailed` with its last lines."""
    lines: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        argv,
        cwd=place.root,
        env={**place.environment(), **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        while line := process.stdout.readline(8192):
            lines.append(line.decode("utf-8", "replace").rstrip())
    if process.returncode != 0:
        raise ToolFailed(_last(lines) or f"{argv[0]} ended with {process.returncode}")


def _last(lines: deque[str]) -> str:
    text = "\n".join(line for line in lines if line.strip())
    return _SECRET.sub("://***@", _COLOUR.sub("", text))[-LAST_CHARACTERS:]


# Python


def prepare_python(place: Place) -> None:
    """requirements.txt into `.stoker/deps`, for the function's own interpreter; then bytecode."""
    python = place.tool()
    declared = os.path.join(place.root, "requirements.txt")
    wanted = list(_wanted(declared, place.root)) if os.path.isfile(declared) else []
    if any(_name_of(line) or _is_reference(line) for line in wanted):
        _install_python(python, wanted, place)
    # Hash-based files that are never checked hold whatever the files' times become, and those that bear
    # the final path need not be corrected at each import. What cannot be compiled says so when imported.
    arguments = ["-qq", "-f", "--invalidation-mode", "unchecked-hash", "-d", place.code_path, place.root]
    try:
        _run([python, "-I", "-m", "compileall", *arguments], place)
    except ToolFailed:
        pass


def _wanted(declared: str, root: str) -> Iterator[str]:
    """The lines of requirements.txt without those that the package holds already."""
    with open(declared, "rb") as file:
        text = file.read(MAX_DECLARATION_BYTES + 1)
    if len(text) > MAX_DECLARATION_BYTES:
        raise ToolFailed(f"requirements.txt is larger than {MAX_DECLARATION_BYTES} bytes")
    vendored = _vendored(root)
    joined = re.sub(r"\\\r?\n", " ", text.decode("utf-8-sig", "replace"))
    for line in joined.splitlines():
        name = _name_of(line)
        if name is None or name not in vendored:
            yield line


def _name_of(line: str) -> str | None:
    """The normalised name, for a line that is a plain requirement."""
    match = _REQUIREMENT.match(line)
    return _normal(match[1]) if match else None


def _is_reference(line: str) -> bool:
    """Whether a line that is no plain requirement still asks for something: `-r more.txt`, `./x.whl`."""
    line = line.strip()
    options = ("-r", "--requirement", "-e", "--editable")
    return bool(line) and not line.startswith("#") and (line[0] != "-" or line.startswith(options))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _vendored(root: str) -> set[str]:
    """Normalised names of the modules and distributions that lie beside the code."""
    names = set()
    for entry in os.listdir(root):
        stem = entry.split("-")[0] if entry.endswith((".dist-info", ".egg-info")) else entry.split(".")[0]
        if os.path.isdir(os.path.join(root, entry)) or entry.endswith((".py", ".so", ".egg-info")):
            names.add(_normal(stem))
    return names


def _install_python(python: str, wanted: list[str], place: Place) -> None:
    # Beside the original, since what it refers to is relative to it.
    filtered = os.path.join(place.root, FILTERED)
    with open(filtered, "x", encoding="utf-8") as file:
        file.write("\n".join(wanted) + "\n")
    options = ["--no-input", "--disable-pip-version-check", "--no-compile", "--no-cache-dir"]
    options += ["--no-warn-script-location", "--progress-bar", "off"]
    target = ["--target", os.path.join(place.root, PYTHON_FOLDER), "-r", FILTERED]
    quiet = {"PIP_ROOT_USER_ACTION": "ignore", "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    try:
        _run([*_pip(python, place), "install", *options, *target], place, **quiet)
    finally:
        os.unlink(filtered)


def _pip(python: str, place: Place) -> list[str]:
    """How to start a pip that fits this interpreter: its own, the one it was shipped with, or ours."""
    asked = (
        "import importlib.util as u, glob, os\n"
        "s = u.find_spec('pip'); e = u.find_spec('ensurepip')\n"
        "w = glob.glob(os.path.join(os.path.dirname(e.origin), '_bundled', 'pip-*.whl')) if e else []\n"
        "print(os.path.dirname(s.origin) if s and s.origin else os.path.join(w[0], 'pip') if w else '')"
    )
    found = subprocess.run(
        [python, "-I", "-c", asked], env=place.environment(), capture_output=True, text=True, check=False
    ).stdout.strip()
    pip = found or os.environ.get("STOKER_BUILD_PIP", "")
    if not pip:
        raise ToolFailed(f"there is no pip for {python}")
    return [python, "-I", pip]


# Node


def prepare_node(place: Place) -> None:
    """The dependencies of package.json into `node_modules`, unless that folder was brought along."""
    declared = os.path.join(place.root, "package.json")
    if os.path.lexists(os.path.join(place.root, "node_modules")) or not os.path.isfile(declared):
        return
    if not _needs_npm(declared):
        return
    node = place.tool()
    locks = ("package-lock.json", "npm-shrinkwrap.json")
    is_locked = any(os.path.isfile(os.path.join(place.root, lock)) for lock in locks)
    verb = "ci" if is_locked else "install"
    options = ["--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"]
    settings = {
        "npm_config_cache": os.path.join(place.workspace, "tmpdir", "npm"),
        "PATH": os.path.dirname(node) + os.pathsep + os.environ.get("PATH", os.defpath),
    }
    _run([node, _npm(node), verb, *options], place, **settings)


def _needs_npm(declared: str) -> bool:
    try:
        with open(declared, encoding="utf-8-sig") as file:
            content: Any = json.loads(file.read(MAX_DECLARATION_BYTES))
    except ValueError as error:
        raise ToolFailed(f"package.json is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ToolFailed("package.json is not a JSON object")
    return bool(content.get("dependencies") or content.get("optionalDependencies"))


def _npm(node: str) -> str:
    """npm's program: the one shipped beside this node, or the one the workshop was given."""
    prefix = os.path.dirname(os.path.dirname(node))
    folders = (
        os.environ.get("STOKER_BUILD_NPM", ""),
        os.path.join(prefix, "lib", "node_modules", "npm"),
        os.path.join(prefix, "share", "nodejs", "npm"),
    )
    programs = (os.path.join(folder, "bin", "npm-cli.js") for folder in folders if folder)
    program = next((program for program in programs if os.path.isfile(program)), None)
    if program is None:
        raise ToolFailed(f"there is no npm for {node}")
    return program


PREPARERS: Mapping[str, Callable[[Place], None]] = MappingProxyType(
    {"python": prepare_python, "nodejs": prepare_node}
)
