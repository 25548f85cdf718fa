"""Docker's default beside ours: the probe in a container of whatever Docker Engine answers here.

Nothing is pulled: the image is made of the few files of this machine that the probe needs, and goes with
the container afterwards.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from stoker.walls.inside.stoker_probe import reach
from stoker.walls.report import DOCKER, Column

ANSWER_S = 60
PLACE = "opt/stoker/walls"
PROBE = f"/{PLACE}/probe.py"
FLAGS = ("-I", "-S", "-B")
ENVIRONMENT = {"LANG": "C.UTF-8"}
# What an interpreter has loaded when it has imported the probe, and where the kernel finds its loader.
LIST = """\
import runpy, sys
runpy.run_path(sys.argv[1], run_name="probe")
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
files |= {line.split()[-1] for line in open("/proc/self/maps") if line.split()[-1].startswith("/")}
print("\\n".join(files))
"""
LOADERS = ("lib64/ld-*", "lib/ld-*")


def look(inside: Path) -> Column:
    """Each probe's word; a column with a problem where no engine answers."""
    client = shutil.which("docker")
    if client is None:
        return Column(DOCKER, problem="there is no `docker` here to compare with")
    name = f"stoker-walls-{secrets.token_hex(4)}"
    traces = reach.Traces(secrets.randbelow(2**30) + 1)
    try:
        _say(client, "info", "--format", "{{.ServerVersion}}")
        _say(client, "import", "-", name, given=_archive(inside))
        try:
            return Column(DOCKER, words=_run(client, name, {**reach.describe(), **traces.leave()}))
        finally:
            _say(client, "rm", "--force", name, is_sure=False)
            _say(client, "rmi", name)
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        return Column(DOCKER, problem=said.decode(errors="replace").strip().splitlines()[-1])
    finally:
        traces.clear()


def _say(client: str, *arguments: str, given: bytes = b"", is_sure: bool = True) -> bytes:
    """What the client prints. Raises `SubprocessError`."""
    command = [client, *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=is_sure, timeout=ANSWER_S).stdout


def _run(client: str, name: str, stranger: dict[str, object]) -> dict[str, str]:
    variables = [word for item in ENVIRONMENT.items() for word in ("-e", "=".join(item))]
    program = [_python(), *FLAGS, PROBE, "--streams"]
    question = {"do": "look", "strangers": [stranger], "given": sorted(ENVIRONMENT)}
    given = json.dumps(question).encode() + b"\n"
    said = _say(client, "run", "--rm", "-i", "--name", name, *variables, name, *program, given=given)
    words: dict[str, str] = json.loads(said)
    return words


def _python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _archive(inside: Path) -> bytes:
    """A root file system of one interpreter, as much of it as the probe needs."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for folder in ("tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for path in sorted(set(_files(inside))):
            archive.add(os.path.realpath(path), str(path))
        archive.add(inside, PLACE)
    return data.getvalue()


def _files(inside: Path) -> Iterator[Path]:
    command = [_python(), *FLAGS, "-c", LIST, str(inside / "probe.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S).stdout
    for path in map(Path, said.splitlines()):
        if inside not in path.parents and path.exists():
            yield path
            # A library is looked for by its short name, which is a link to it.
            yield from path.parent.glob(path.name.split(".so")[0] + ".so*") if ".so" in path.name else ()
    yield from (path for pattern in LOADERS for path in Path("/").glob(pattern))
