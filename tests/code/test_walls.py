"""Builds as the node runs them: the real workshop, on each backend that works here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from code_room import Room, hello, zip_of
from stoker import plugins
from stoker.code import BUILD_STEPS, builder_launch
from stoker.code.cache import Cache
from stoker.code.functions import Functions
from stoker.errors import BadCode, BuildFailed
from stoker.pool.workshop import Workshop
from stoker.runtimes.choosing import choose
from stoker.settings import Settings

pytestmark = pytest.mark.timeout(180)

RUNTIMES = [plugins.load("runtimes", name).Runtime() for name in plugins.names("runtimes")]


class WalledRoom(Room):
    """The room over a real workshop."""

    def __init__(self, settings: Settings) -> None:
        launches = [runtime.launch(one) for runtime in RUNTIMES for one in runtime.interpreters()]
        python = next(launch for launch in launches if launch.name.startswith("python-"))
        super().__init__(settings, python)
        launch = builder_launch(python, settings, launches)
        room = plugins.load("sandboxes", settings.sandbox)
        self.backend = room.Backend(room.Settings.of(settings), (*launches, launch))
        workshop = Workshop(self.backend, launch, BUILD_STEPS)
        self.cache = Cache(settings, workshop, lambda wanted: choose(RUNTIMES, wanted), self.records)
        self.functions = Functions(self.cache, self.records)


@pytest.fixture(params=["process", "lean"])
async def room(request, home: Path, packages: Path):
    settings = Settings(home=home, sandbox=request.param, function_url_prefix=f"{packages}/")
    room = WalledRoom(settings)
    problems = room.backend.problems()
    if problems:
        pytest.skip("; ".join(map(str, problems)))
    room.backend.prepare()
    await room.backend.open()
    await room.open()
    yield room
    await room.close()
    await room.backend.close()


def config(environment: str) -> str:
    return f'{{"environment": "{environment}"}}'


async def test_a_function_is_unpacked_and_compiled(room, put):
    put("W1")
    pin = await room.cache.fetch("front/W1")
    assert list((pin.version.folder / "__pycache__").glob("main.*.pyc"))
    owner = room.settings.home.stat().st_uid
    assert {path.lstat().st_uid for path in pin.version.folder.rglob("*")} == {owner}
    pin.release()


PYTHONS = [one for runtime in RUNTIMES if runtime.name == "python" for one in runtime.interpreters()]


@pytest.mark.parametrize("interpreter", [PYTHONS[0], PYTHONS[-1]], ids=lambda one: one.version)
async def test_dependencies_are_those_of_the_functions_own_interpreter(room, put, interpreter):
    declared = {"requirements.txt": "markupsafe\n", "config.json": config(f"python{interpreter.version}")}
    put("W1", hello("W1", **declared))
    pin = await room.cache.fetch("front/W1")
    assert pin.version.function.version == interpreter.version
    code = "import sys; sys.path.insert(0, sys.argv[1]); import markupsafe._speedups"
    deps = pin.version.folder / ".stoker" / "deps"
    subprocess.run([interpreter.binary, "-I", "-c", code, deps], check=True)
    pin.release()


async def test_node_modules_are_installed(room, put):
    if "nodejs" not in plugins.names("runtimes"):
        pytest.skip("no runtime for Node.js")
    package = '{"name": "n", "dependencies": {"mustache": "^4.0.0"}}'
    put("N1", {"N1/index.js": "", "N1/config.json": config("nodejs"), "N1/package.json": package})
    pin = await room.cache.fetch("front/N1")
    assert (pin.version.folder / "node_modules/mustache/mustache.js").is_file()
    pin.release()


async def test_a_missing_dependency_is_told(room, put):
    put("W1", hello("W1", **{"requirements.txt": "stoker-never-published\n"}))
    with pytest.raises(BuildFailed, match="No matching distribution found for stoker-never-published"):
        await room.cache.fetch("front/W1")
    await room.cache._trash.wait_empty()
    assert room.leftovers() == []


async def test_a_bad_package_is_told(room, put):
    put("W1", {"W1/../../x": ""})
    with pytest.raises(BadCode, match="leads out of the package"):
        await room.cache.fetch("front/W1")


async def test_four_deploys_at_once_are_built(room):
    import asyncio

    package = zip_of({"main.py": "x = 1"})
    names = [f"f{number}" for number in range(4)]
    await asyncio.gather(*(room.functions.create(name, package, runtime="python") for name in names))
    assert len(room.cache.snapshot().entries) == 4


SPY = """
def get_requires_for_build_wheel(settings=None): return []
def build_wheel(directory, settings=None, metadata=None):
    import os
    raise SystemExit("seen: " + repr([path for path in {paths!r} if os.path.exists(path)]))
"""


async def test_a_build_sees_nothing_of_the_nodes_home(room, put):
    if not room.backend.abilities.walls:
        pytest.skip("a backend without walls")
    paths = [str(room.settings.home / name) for name in ("records.sqlite", "code", "build-settings")]
    builder = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "requirements.txt": "./dep\n",
        "dep/backend.py": SPY.format(paths=[*paths, "/root/.ssh", "/etc/shadow", str(Path.cwd() / "src")]),
        "dep/pyproject.toml": f'{builder}[project]\nname = "dep"\nversion = "1"\n',
    }
    put("W1", hello("W1", **files))
    with pytest.raises(BuildFailed, match=r"seen: \[\]"):
        await room.cache.fetch("front/W1")
    assert os.path.exists(paths[0])
