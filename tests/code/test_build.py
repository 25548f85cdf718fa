"""One build from its first byte to its place, and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from code_room import CONFIG, MAIN, Room, hello, zip_of
from stoker.code.build import take
from stoker.errors import BadCode, BuildFailed, StorageFull
from stoker.settings import Settings
from stoker.types import FunctionError, Logs, Outcome, Phases, Status

MEBIBYTE = 1024 * 1024

pytestmark = pytest.mark.timeout(120)


async def fails(room: Room, key: str, kind: type[Exception]) -> str:
    """The message of a fetch that fails; nothing is left of it."""
    with pytest.raises(kind) as caught:
        await room.cache.fetch(key)
    assert room.cache.pin(key) is None
    await room.cache._trash.wait_empty()
    assert room.leftovers() == []
    assert room.cache.snapshot().entries == ()
    return str(caught.value)


async def test_a_finished_folder_is_read_only_and_readable_for_all(open_room, put):
    put("W1", hello("W1", **{"sub/x.txt": "x"}))
    pin = await (await open_room()).cache.fetch("front/W1")
    folder = pin.version.folder
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert modes <= {0o444, 0o555}
    assert pin.version.size_bytes == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    pin.release()


async def test_the_folder_bears_the_digest_and_the_revision_follows_code_and_configuration(open_room, put):
    put("W1")
    room = await open_room()
    first = await room.cache.fetch("front/W1")
    assert first.version.folder.parent.name == first.version.digest
    room.cache.forget("front/W1")
    put("W1", hello("W1") | {"W1/config.json": '{"environment": "python3", "memory_mb": 64}'})
    second = await room.cache.fetch("front/W1")
    assert second.version.function.limits.memory_mb == 64
    assert second.version.function.revision != first.version.function.revision
    first.release()
    second.release()


async def test_a_package_that_is_none_is_bad_code(open_room, packages):
    (packages / "W1.zip").write_bytes(b"<html>")
    assert "neither a zip nor a tar.gz" in await fails(await open_room(), "front/W1", BadCode)


async def test_a_bomb_is_bad_code(open_room, put):
    put("W1", {"W1/zeros": bytes(40 * MEBIBYTE)})
    assert "200 times its size" in await fails(await open_room(), "front/W1", BadCode)


async def test_a_package_under_another_name_is_told(open_room, put):
    put("W1", hello("W2"))
    message = await fails(await open_room(), "front/W1", BadCode)
    assert "no folder 'W1' at its top; it holds W2" in message


async def test_a_package_without_a_top_folder_will_do(open_room, put):
    put("W1", {"main.py": MAIN, "config.json": CONFIG})
    pin = await (await open_room()).cache.fetch("front/W1")
    assert (pin.version.folder / "main.py").is_file()
    pin.release()


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A home on a disk of 6 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "stoker-test", home], check=True)
    yield home
    subprocess.run(["umount", home], check=True)


@pytest.fixture
async def small_room(small_disk, packages, launch):
    (small_disk / "build-settings").mkdir(exist_ok=True)
    room = Room(Settings(home=small_disk, function_url_prefix=f"{packages}/"), launch)
    yield await room.open()
    await room.close()


async def test_a_disk_full_at_fetch_is_told_and_leaves_nothing(small_room, packages):
    (packages / "W1.zip").write_bytes(os.urandom(8 * MEBIBYTE))
    assert "no space left" in await fails(small_room, "front/W1", StorageFull)


async def test_a_disk_full_at_unpack_is_told_and_leaves_nothing(small_room, put):
    put("W1", hello("W1", big=b"x" * 6 * MEBIBYTE))
    assert "no space left" in await fails(small_room, "front/W1", StorageFull)
    put("W1")
    (await small_room.cache.fetch("front/W1")).release()


async def test_a_disk_full_while_dependencies_are_installed_is_told(small_room, put):
    put("W1", hello("W1", **{"requirements.txt": "sympy\n"}))
    assert "No space left on device" in await fails(small_room, "front/W1", StorageFull)


BACKEND = """
import os
def get_requires_for_build_wheel(settings=None):
    return []
def build_wheel(directory, settings=None, metadata=None):
    {body}
"""


def local_project(body: str) -> dict[str, str | bytes]:
    """A function whose dependency is a project in its own package that runs `body` when it is built."""
    pyproject = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return hello(
        "W1",
        **{
            "requirements.txt": "./dep\n",
            "dep/pyproject.toml": pyproject + '[project]\nname = "dep"\nversion = "1"\n',
            "dep/backend.py": BACKEND.format(body=body),
        },
    )


async def test_a_build_that_grows_too_large_is_ended(open_room, put):
    body = "f = open(os.environ['TMPDIR'] + '/big', 'wb')\n    while True: f.write(bytes(1 << 16)); f.flush()"
    put("W1", local_project(body))
    message = await fails(await open_room(build_size_mb=32), "front/W1", BuildFailed)
    assert "build_size_mb is 32" in message


async def test_a_build_that_takes_too_long_is_ended(open_room, put):
    put("W1", local_project("import signal; signal.pause()"))
    message = await fails(await open_room(build_timeout_s=3), "front/W1", BuildFailed)
    assert "took longer than build_timeout_s, 3 s" in message


async def test_an_error_in_a_dependencys_own_build_is_told(open_room, put):
    put("W1", local_project("raise ValueError('no compiler for you')"))
    assert "no compiler for you" in await fails(await open_room(), "front/W1", BuildFailed)


WHEEL = """
import shutil, zipfile
METADATA = "Metadata-Version: 2.1\\nName: dep\\nVersion: 1\\n"
TAGS = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def swap(folder, victim):
    shutil.copytree(folder, victim)
    os.rename(folder, os.environ["TMPDIR"] + "/away")
    os.symlink(victim, folder)
def write_wheel(directory):
    with zipfile.ZipFile(os.path.join(directory, "dep-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("dep.py", "")
        wheel.writestr("dep-1.dist-info/METADATA", METADATA)
        wheel.writestr("dep-1.dist-info/WHEEL", TAGS)
        wheel.writestr("dep-1.dist-info/RECORD", "")
    return "dep-1-py3-none-any.whl"
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.mkfifo(tree + '/W1/pipe')", "'pipe', no file, folder or link"),
        ("swap(tree, victim)", "in the place of its folder"),
        ("swap(tree + '/W1', victim)", "in the place of its folder"),
        ("open(tree + '/W1/sparse', 'wb').truncate(1 << 40)", "build_size_mb is 32"),
    ],
)
async def test_what_a_build_leaves_is_looked_at(open_room, put, tmp_path, body, words):
    victim = tmp_path / "victim"
    tree = f"tree = os.path.realpath(os.environ['TMPDIR'] + '/../tree'); victim = {str(victim)!r}"
    files = local_project(f"{tree}\n    {body}\n    return write_wheel(directory)")
    put("W1", files | {"W1/dep/backend.py": str(files["W1/dep/backend.py"]) + WHEEL})
    assert words in await fails(await open_room(build_size_mb=32), "front/W1", BuildFailed)
    assert victim.is_dir() or "swap" not in body


async def test_builds_wait_for_one_another(open_room, put):
    for name in "ABCD":
        put(name)
    room = await open_room(builds_at_once=2)
    pins = await asyncio.gather(*(room.cache.fetch(f"front/{name}") for name in "ABCD"))
    assert room.bench.most_running == 2
    for pin in pins:
        pin.release()


async def test_a_folder_is_taken_by_no_link(tmp_path):
    (tmp_path / "top/tree/W1").mkdir(parents=True)
    (tmp_path / "victim/W1").mkdir(parents=True)
    take(tmp_path / "top", ("tree", "W1"), tmp_path / "taken")
    assert (tmp_path / "taken").is_dir()
    os.symlink(tmp_path / "victim/W1", tmp_path / "top/tree/W1")
    with pytest.raises(BuildFailed, match="in the place of its folder"):
        take(tmp_path / "top", ("tree", "W1"), tmp_path / "taken2")
    os.rename(tmp_path / "top/tree", tmp_path / "top/away")
    os.symlink(tmp_path / "victim", tmp_path / "top/tree")
    with pytest.raises(BuildFailed, match="in the place of its folder"):
        take(tmp_path / "top", ("tree", "W1"), tmp_path / "taken2")
    assert (tmp_path / "victim/W1").is_dir()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.TIMED_OUT, "took longer than build_timeout_s, 300 s"),
        (Status.OUT_OF_MEMORY, "needed more than build_memory_mb, 2048 MB"),
        (Status.CRASHED, "ended early: Boom: it broke\nlast words"),
    ],
)
async def test_the_end_of_a_steps_sandbox_is_told_apart(open_room, put, status, words):
    put("W1")
    room = await open_room()

    async def run(*_: object) -> Outcome:
        error = FunctionError("Boom", "it broke")
        logs = Logs(stdout=b"last words\n")
        return Outcome(invocation="", function="", status=status, error=error, logs=logs, phases=Phases())

    room.bench.run = run  # type: ignore[method-assign]
    assert words in await fails(room, "front/W1", BuildFailed)


@pytest.mark.parametrize("result", [b"", b"[]", b'{"ok": false, "kind": "root"}', b"\xff" * 100, b"[" * 5000])
async def test_an_answer_that_a_step_cannot_give_is_a_failed_build(open_room, put, result):
    put("W1")
    room = await open_room()

    async def run(*_: object) -> Outcome:
        return Outcome(invocation="", function="", status=Status.OK, result=result, phases=Phases())

    room.bench.run = run  # type: ignore[method-assign]
    assert "no answer of its own" in await fails(room, "front/W1", BuildFailed)


KILLED = """
import asyncio, os, sys
from pathlib import Path
from code_room import Bench, Launch, Room, Settings

async def main(home, packages):
    room = Room(Settings(home=Path(home), function_url_prefix=packages + "/"), Launch(name="x", argv=("x",)))
    await room.open()
    room.bench.gate = asyncio.Event()
    fetch = asyncio.ensure_future(room.cache.fetch("front/W1"))
    await room.bench.entered.wait()
    print("building", flush=True)
    await fetch

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_node_killed_in_the_middle_of_a_build_leaves_nothing_visible(open_room, home, packages, put):
    put("W1")
    path = {"PYTHONPATH": ":".join(entry for entry in sys.path if entry)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, home, packages], stdout=subprocess.PIPE, env=path
    ) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == b"building\n"
        node.send_signal(signal.SIGKILL)
    assert list((home / "code").iterdir()) == []
    assert list((home / "staging").iterdir()) != []
    room = await open_room()
    await room.cache._trash.wait_empty()
    assert room.leftovers() == []
    assert room.cache.pin("front/W1") is None
    (await room.cache.fetch("front/W1")).release()


async def test_whoever_leaves_does_not_end_the_build_for_the_others(open_room, put):
    put("W1")
    room = await open_room()
    room.bench.gate = asyncio.Event()
    leaver = asyncio.ensure_future(room.cache.fetch("front/W1"))
    stayer = asyncio.ensure_future(room.cache.fetch("front/W1"))
    await room.bench.entered.wait()
    leaver.cancel()
    room.bench.gate.set()
    (await stayer).release()
    assert leaver.cancelled()
    assert [entry.pins for entry in room.cache.snapshot().entries] == [0]


async def test_a_blob_of_random_bytes_named_zip_is_bad_code(open_room, packages):
    (packages / "W1.zip").write_bytes(b"PK\x03\x04" + os.urandom(1000))
    assert "broken" in await fails(await open_room(), "front/W1", BadCode)


async def test_a_zip_inside_a_zip_stays_a_file(open_room, put):
    put("W1", hello("W1", **{"inner.zip": zip_of({"a": "b"})}))
    pin = await (await open_room()).cache.fetch("front/W1")
    assert (pin.version.folder / "inner.zip").is_file()
    pin.release()
