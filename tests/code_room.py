"""The room `code` for its tests: packages, a workshop without walls, real records, real installers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

import stoker.code
from stoker.code.cache import Cache
from stoker.code.functions import Functions
from stoker.errors import BadCode
from stoker.records.store import Records
from stoker.sandboxes.contract import Launch
from stoker.settings import Settings
from stoker.types import FunctionError, Limits, Network, Outcome, Phases, Status

STEPS = Path(stoker.code.__path__[0]) / "workshop"
VERSION = ".".join(map(str, sys.version_info[:3]))
PYTHON = Path(sys.executable).resolve()
NODE = Path("/usr/bin/node")
DRIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import build
event = json.load(sys.stdin)
json.dump(build.handler(event, None), sys.stdout)
"""

MAIN = "def lambda_handler(event, context):\n    return {'hello': event.get('name')}\n"
CONFIG = json.dumps({"environment": "python3"})
Files = Mapping[str, str | bytes]


class Bench:
    """A workshop without walls: the real steps, each in a process of its own. Counts them."""

    def __init__(self, launch: Launch) -> None:
        self._environment = {name: translated(value, launch) for name, value in launch.environment.items()}
        self.steps: list[tuple[str, Network]] = []
        self.running = 0
        self.most_running = 0
        self.gate: asyncio.Event | None = None
        """When set, steps wait for it."""
        self.entered = asyncio.Event()

    async def run(
        self, event: dict[str, object], workspace: Path, limits: Limits, network: Network
    ) -> Outcome:
        self.steps.append((str(event["step"]), network))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        self.entered.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
            return await self._run({**event, "workspace": str(workspace)}, limits)
        finally:
            self.running -= 1

    async def _run(self, event: dict[str, object], limits: Limits) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-I", "-c", DRIVER, STEPS),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(limits.timeout_s):
                result, errors = await process.communicate(json.dumps(event).encode())
        except TimeoutError:
            return ended(Status.TIMED_OUT)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            return ended(Status.CRASHED, error=FunctionError("Crashed", errors.decode()))
        return ended(Status.OK, result)


def ended(status: Status, result: bytes = b"", error: FunctionError | None = None) -> Outcome:
    return Outcome(
        invocation="", function="build", status=status, result=result, error=error, phases=Phases()
    )


def translated(value: str, launch: Launch) -> str:
    """A path that only a sandbox would see, as it is here."""
    for show in launch.shows:
        if value == show.target or value.startswith(show.target + "/"):
            return show.source + value[len(show.target) :]
    return value


class Language(msgspec.Struct, frozen=True):
    """As much of a runtime as this room asks for."""

    name: str
    default_handler: str
    suffix: str

    def entry_file(self, handler: str) -> str:
        return handler.rpartition(".")[0].replace(".", "/") + self.suffix


class Installed(msgspec.Struct, frozen=True):
    version: str


class Chosen(msgspec.Struct, frozen=True):
    runtime: Language
    interpreter: Installed
    note: str = ""


PYTHON_CHOICE = Chosen(Language("python", "main.lambda_handler", ".py"), Installed(VERSION))
NODE_CHOICE = Chosen(Language("nodejs", "index.handle", ".js"), Installed("20.20.2"))


def choose(wanted: str) -> Chosen:
    if wanted.startswith("python"):
        note = f"{wanted} is not installed; {VERSION} runs it" if wanted == "python3.7" else ""
        return msgspec.structs.replace(PYTHON_CHOICE, note=note)
    if wanted.startswith("node"):
        return NODE_CHOICE
    raise BadCode(f"no {wanted!r} in runtimes; there is nodejs, python")


def zip_of(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: Files, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def hello(name: str, **more: str | bytes) -> dict[str, str | bytes]:
    """The files of a Python function; `more` by their paths below its folder."""
    files: dict[str, str | bytes] = {f"{name}/main.py": MAIN, f"{name}/config.json": CONFIG}
    return files | {f"{name}/{path}": content for path, content in more.items()}


class Room:
    """The room `code` with everything it needs; may be closed and opened again over the same home."""

    def __init__(self, settings: Settings, launch: Launch) -> None:
        self.settings = settings
        self.bench = Bench(launch)
        self.records = Records(settings.home / "records.sqlite")
        self.retired: list[str] = []
        self.cache = Cache(settings, self.bench, choose, self.records)
        self.cache.on_retired = self.retired.append
        self.functions = Functions(self.cache, self.records)

    async def open(self) -> Room:
        await self.records.open()
        await self.cache.open()
        return self

    async def close(self) -> None:
        await self.cache.close()
        await self.records.close()

    def leftovers(self) -> list[str]:
        """What no build should leave."""
        home = self.settings.home
        return [
            str(path.relative_to(home)) for name in ("staging", "trash") for path in (home / name).iterdir()
        ]
