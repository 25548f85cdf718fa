"""`doctor`: what this machine can do, what it cannot, and what would help. Changes nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from stoker import __version__, plugins
from stoker.cli.exits import FAILED, OK
from stoker.errors import NodeError
from stoker.linux import cgroups, rootless
from stoker.settings import Settings
from stoker.types import MEBIBYTE, Network

EXTRAS = (("s3", "obstore", "packages on S3"),)


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at."""

    what: str
    works: bool
    detail: str
    remedies: tuple[str, ...] = ()


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything that was looked at."""

    HEADS: ClassVar[tuple[str, ...]] = ("", "what", "found")
    sandbox: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 when the default sandbox works."""
        default = f"sandbox {self.sandbox}"
        return OK if any(one.what == default and one.works for one in self.findings) else FAILED

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """For a table."""
        for one in self.findings:
            remedies = "".join(f"\n→ {remedy}" for remedy in one.remedies)
            yield "✓" if one.works else "✗", one.what, one.detail + remedies

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        works = self.exit_code == OK
        return {"sandbox": self.sandbox, "works": works, "findings": msgspec.to_builtins(self.findings)}


def examine(settings: Settings) -> Diagnosis:
    """Look at everything."""
    return Diagnosis(
        settings.sandbox,
        (
            *_machine(settings),
            _cgroups(settings),
            _user_namespaces(),
            *_backends(settings),
            *_egress(settings),
            *_runtimes(),
            *_extras(),
        ),
    )


def _machine(settings: Settings) -> Iterator[Finding]:
    yield Finding("stoker", True, __version__ + (", compiled" if is_compiled() else ""))
    yield Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")
    yield Finding("kernel", True, f"{platform.system()} {platform.release()} {platform.machine()}")
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    yield Finding("user", True, user)
    total, free = _memory_mb()
    yield Finding("memory", True, f"{total} MB, {free} MB of it free; {os.cpu_count()} processors")
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    yield Finding("disk", True, f"{shutil.disk_usage(place).free // MEBIBYTE} MB free for {settings.home}")


def is_compiled() -> bool:
    """Whether what is on the path of a call is machine code (`scripts/setup --compiled`)."""
    found = importlib.util.find_spec("stoker.invoke")
    return found is not None and not str(found.origin).endswith(".py")


def _memory_mb() -> tuple[int, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {fields[0].rstrip(":"): int(fields[1]) for fields in lines}
    return kilobytes["MemTotal"] // 1024, kilobytes.get("MemAvailable", kilobytes["MemFree"]) // 1024


def _cgroups(settings: Settings) -> Finding:
    trees = cgroups.find_trees(settings.cgroup_parent)
    if not trees:
        return Finding("cgroups", False, "none that this user could use, so the kernel limits nothing")
    controllers = sorted({name for tree in trees for name in tree.controllers})
    return Finding("cgroups", True, f"version {trees[0].version}: {', '.join(controllers)}")


def _user_namespaces() -> Finding:
    obstacle = rootless.find_obstacle()
    if obstacle is None:
        return Finding("user namespaces", True, "this user may make them")
    return Finding("user namespaces", False, f"{obstacle.step}: {os.strerror(obstacle.errno)}")


def _backends(settings: Settings) -> Iterator[Finding]:
    names = plugins.names("sandboxes")
    if settings.sandbox not in names:
        yield Finding(f"sandbox {settings.sandbox}", False, f"is none of {', '.join(names)}")
    for name in names:
        yield from _backend(name, settings)


def _backend(name: str, settings: Settings) -> Iterator[Finding]:
    what = f"sandbox {name}"
    try:
        room = plugins.load("sandboxes", name)
        backend = room.Backend(room.Settings.of(settings), ())
        problems = backend.problems()
    except (NodeError, ImportError) as error:
        yield Finding(what, False, str(error))
        return
    if problems:
        yield _problematic(what, problems)
        return
    abilities = msgspec.structs.asdict(backend.abilities)
    able = [name.replace("_", " ") for name, can in abilities.items() if can]
    yield Finding(what, True, ", ".join(able if backend.abilities.walls else ["no walls", *able]))
    for weakness in backend.weaknesses():
        yield Finding(f"weaker: {name}", True, weakness.what, (weakness.remedy,))


def _egress(settings: Settings) -> Iterator[Finding]:
    """Whether the default sandbox can be let out to the internet."""
    if settings.sandbox not in plugins.names("sandboxes"):
        return
    try:
        room = plugins.load("sandboxes", settings.sandbox)
        backend = room.Backend(room.Settings(), ())
    except (NodeError, ImportError) as error:
        yield Finding("egress", False, str(error))
        return
    problem = backend.lacks(Network.EGRESS)
    if problem is not None:
        yield _problematic("egress", [problem])
    elif backend.abilities.walls:
        yield Finding("egress", True, "functions can have the network 'egress'")
    else:
        yield Finding("egress", True, "no walls: every function has the host's network")


def _runtimes() -> Iterator[Finding]:
    names = plugins.names("runtimes")
    if not names:
        yield Finding("runtimes", False, "none: this installation is not whole")
    for name in names:
        runtime = plugins.load("runtimes", name).Runtime()
        problems = runtime.problems()
        what = f"runtime {name}"
        versions = "\n".join(f"{one.version} at {one.binary}" for one in runtime.interpreters())
        yield _problematic(what, problems) if problems else Finding(what, True, versions)


def _problematic(what: str, problems: list[Any]) -> Finding:
    remedies = tuple(problem.remedy for problem in problems if problem.remedy)
    return Finding(what, False, "; ".join(problem.what for problem in problems), remedies)


def _extras() -> Iterator[Finding]:
    for name, module, use in EXTRAS:
        is_there = importlib.util.find_spec(module) is not None
        remedies = () if is_there else (f"pip install 'stoker[{name}]'",)
        yield Finding(f"extra {name}", is_there, use if is_there else f"not installed: no {use}", remedies)
