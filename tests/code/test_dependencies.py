"""Dependencies: really installed, by pip and npm, from where this machine gets them."""

from __future__ import annotations

import json
import marshal
import subprocess
import sys

import pytest

from code_room import NODE, PYTHON, hello
from stoker.errors import BuildFailed
from stoker.types import Network

pytestmark = pytest.mark.timeout(180)

NODE_CONFIG = json.dumps({"environment": "nodejs20"})
INDEX = "exports.handle = (event) => require('mustache').render('{{a}}', event)\n"


def node_package(**package: object) -> dict[str, str | bytes]:
    return {
        "N1/index.js": INDEX,
        "N1/config.json": NODE_CONFIG,
        "N1/package.json": json.dumps({"name": "n1"} | package),
    }


def run_python(folder, code: str) -> str:
    """What a program prints that sees a function's folder as the runtime does."""
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder / '.stoker/deps')!r}]\n"
    done = subprocess.run([PYTHON, "-I", "-c", path + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_a_declared_dependency_is_installed_with_its_own(open_room, put):
    put("W1", hello("W1", **{"requirements.txt": "jinja2>=3\n"}))
    room = await open_room()
    pin = await room.cache.fetch("front/W1")
    deps = pin.version.folder / ".stoker" / "deps"
    assert {"jinja2", "markupsafe"} <= {path.name for path in deps.iterdir()}
    assert room.bench.steps == [("unpack", Network.NONE), ("prepare", Network.HOST)]
    assert run_python(pin.version.folder, "import jinja2; print(jinja2.Template('{{a}}').render(a=1))") == "1"
    pin.release()


async def test_code_that_declares_nothing_is_built_without_network(open_room, put):
    put("W1")
    room = await open_room()
    (await room.cache.fetch("front/W1")).release()
    assert room.bench.steps == [("unpack", Network.NONE), ("prepare", Network.NONE)]


async def test_what_lies_beside_the_code_is_not_installed_again(open_room, put):
    """No index is asked: the name that would be asked for does not exist anywhere."""
    vendored = {
        "stoker_never_published/__init__.py": "",
        "another_one-1.0.dist-info/METADATA": "Name: another.one\n",
        "third.py": "",
        "requirements.txt": "stoker-never-published==9.9  # declared, and here\n"
        "Another.One\nthird[x]>=1; python_version>'3'\n",
    }
    put("W1", hello("W1", **vendored))
    room = await open_room()
    pin = await room.cache.fetch("front/W1")
    assert not (pin.version.folder / ".stoker").exists()
    pin.release()


async def test_a_dependency_that_does_not_exist_fails_with_the_tools_last_lines(open_room, put):
    put("W1", hello("W1", **{"requirements.txt": "stoker-never-published==9.9\n"}))
    room = await open_room()
    with pytest.raises(BuildFailed, match="No matching distribution found for stoker-never-published"):
        await room.cache.fetch("front/W1")
    await room.cache.close()
    assert room.leftovers() == []


async def test_requirements_may_refer_to_files_of_the_package(open_room, put):
    more = {"requirements.txt": "-r more/those.txt\n", "more/those.txt": "markupsafe\n"}
    put("W1", hello("W1", **more))
    pin = await (await open_room()).cache.fetch("front/W1")
    assert (pin.version.folder / ".stoker/deps/markupsafe").is_dir()
    assert not (pin.version.folder / ".stoker-requirements.txt").exists()
    pin.release()


async def test_bytecode_is_there_and_does_not_mind_the_time(open_room, put):
    put("W1", hello("W1", **{"broken.py": "def (:\n", "sub/mod.py": "x = 1\n"}))
    pin = await (await open_room()).cache.fetch("front/W1")
    tag = sys.implementation.cache_tag
    for source in ("main", "sub/mod"):
        folder, _, name = source.rpartition("/")
        compiled = pin.version.folder / folder / "__pycache__" / f"{name}.{tag}.pyc"
        data = compiled.read_bytes()
        assert data[4:8] == (1).to_bytes(4, "little")  # hash-based, unchecked
        assert marshal.loads(data[16:]).co_filename == f"/app/function/{source}.py"
    pin.release()


async def test_node_modules_are_installed_when_they_are_missing(open_room, put):
    put("N1", node_package(dependencies={"mustache": "^4.0.0"}, devDependencies={"isarray": "2.0.5"}))
    pin = await (await open_room()).cache.fetch("front/N1")
    program = f"console.log(require({str(pin.version.folder)!r}).handle({{a: 7}}))"
    done = subprocess.run([NODE, "-e", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7"
    installed = [path.name for path in (pin.version.folder / "node_modules").iterdir()]
    assert "mustache" in installed and "isarray" not in installed
    pin.release()


async def test_a_lock_file_has_the_last_word(open_room, put):
    files = node_package(dependencies={"mustache": "^4.0.0"})
    put("N1", files)
    room = await open_room()
    first = await room.cache.fetch("front/N1")
    lock = (first.version.folder / "package-lock.json").read_text()
    first.release()
    put(
        "N1", files | {"N1/package-lock.json": lock.replace("4.2.0", "4.1.0").replace("integrity", "ignored")}
    )
    room.cache.forget("front/N1")
    pin = await room.cache.fetch("front/N1")
    said = json.loads((pin.version.folder / "node_modules/mustache/package.json").read_bytes())
    assert said["version"] == "4.1.0"
    pin.release()


async def test_node_modules_that_were_brought_along_are_used_as_they_are(open_room, put):
    files = node_package(dependencies={"stoker-never-published-xyz": "1"})
    put("N1", files | {"N1/node_modules/mustache/index.js": "exports.render = () => 'vendored'\n"})
    pin = await (await open_room()).cache.fetch("front/N1")
    names = [path.name for path in (pin.version.folder / "node_modules").iterdir()]
    assert names == ["mustache"]
    pin.release()


async def test_an_npm_package_that_does_not_exist_fails_with_the_tools_last_lines(open_room, put):
    put("N1", node_package(dependencies={"stoker-never-published-xyz": "1.0.0"}))
    room = await open_room()
    with pytest.raises(BuildFailed, match="stoker-never-published-xyz"):
        await room.cache.fetch("front/N1")


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
async def test_a_package_json_that_is_none_is_told(open_room, put, text):
    put("N1", node_package() | {"N1/package.json": text})
    with pytest.raises(BuildFailed, match=r"package\.json is not"):
        await (await open_room()).cache.fetch("front/N1")
