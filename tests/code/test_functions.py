"""Deployed functions: built when they are deployed, all of it or nothing, one change at a time."""

from __future__ import annotations

import asyncio
import io
import tarfile

import pytest

from code_room import CONFIG, MAIN, VERSION, hello, tar_of, zip_of
from stoker.errors import (
    AlreadyExists,
    BadCode,
    BadRequest,
    BuildFailed,
    CodeUnavailable,
    NoSuchFunction,
    PayloadTooLarge,
)
from stoker.types import Network, Reuse

PACKAGE = zip_of({"main.py": MAIN})


async def code_of(room, key: str) -> str:
    """The entry file that a call of this key would run."""
    pin = await room.cache.fetch(key)
    try:
        return (pin.version.folder / "main.py").read_text()
    finally:
        pin.release()


async def nothing_left(room) -> bool:
    await room.cache._trash.wait_empty()
    home = room.settings.home
    return (
        room.leftovers() == []
        and not list((home / "blobs").iterdir())
        and not list((home / "code").iterdir())
    )


@pytest.fixture
async def room(open_room):
    return await open_room()


async def test_a_zip_is_deployed_and_can_be_called_at_once(room):
    record = await room.functions.create("hello", PACKAGE, runtime="python3")
    assert (record.name, record.runtime, record.handler) == ("hello", "python3", "main.lambda_handler")
    assert (record.config.timeout_s, record.config.memory_mb, record.config.max_concurrency) == (30, 128, 10)
    assert len(record.id) == 32 and record.version == "1.0.0"
    pin = room.cache.pin("functions/hello")
    assert pin is not None
    assert pin.version.function.version == VERSION
    assert pin.version.function.max_concurrency == 10
    pin.release()


@pytest.mark.parametrize(
    "code",
    [
        MAIN.encode(),
        tar_of({"main.py": MAIN}),
        tar_of({"./main.py": MAIN}),
        zip_of({"some-folder/main.py": MAIN, "__MACOSX/x": ""}),
        zip_of({"main.py": MAIN, "other.py": ""}),
    ],
    ids=["one source file", "tar.gz", "tar.gz of a folder itself", "one top folder", "two files"],
)
async def test_code_comes_in_many_shapes(room, code):
    await room.functions.create("hello", code, runtime="python")
    assert await code_of(room, "functions/hello") == MAIN


async def test_one_source_file_is_put_where_its_handler_says(room):
    record = await room.functions.create(
        "hello", MAIN.encode(), runtime="python", handler="app.lambda_handler"
    )
    pin = await room.cache.fetch("functions/hello")
    assert record.handler == "app.lambda_handler"
    assert (pin.version.folder / "app.py").is_file()
    pin.release()


async def test_every_field_is_kept_and_in_force(room):
    record = await room.functions.create(
        "hello",
        PACKAGE,
        runtime="python3.7",
        version="2.0",
        timeout=2.5,
        memory_mb=256,
        max_concurrency=3,
        environment={"KEY": "value"},
        metadata={"team": "x"},
        reuse=Reuse.NONE,
        concurrency=2,
        sandbox="lean",
    )
    assert record == await room.functions.get("hello") == await room.functions.get(record.id)
    assert (record.version, record.metadata) == ("2.0", {"team": "x"})
    pin = await room.cache.fetch("functions/hello")
    function = pin.version.function
    assert (function.limits.timeout_s, function.limits.memory_mb) == (2.5, 256)
    assert (function.reuse, function.concurrency, function.sandbox) == (Reuse.NONE, 2, "lean")
    assert function.environment == {"KEY": "value"}
    assert "python3.7 is not installed" in function.note
    pin.release()


async def test_what_the_deployer_leaves_open_config_json_may_say(room):
    config = '{"environment": "python3", "memory_mb": 64, "reuse": "none", "timeout": "5s"}'
    package = zip_of({"main.py": MAIN, "config.json": config})
    record = await room.functions.create("hello", package, memory_mb=32)
    assert (record.config.memory_mb, record.config.reuse, record.config.timeout_s) == (32, Reuse.NONE, 5)
    assert record.runtime == "python3"


async def test_a_second_of_the_same_name_is_refused(room):
    await room.functions.create("hello", PACKAGE, runtime="python")
    with pytest.raises(AlreadyExists, match="'hello'"):
        await room.functions.create("hello", PACKAGE, runtime="python")


async def test_of_two_deploys_at_once_one_wins(room):
    codes = [f"# {n}\n{MAIN}".encode() for n in range(2)]
    done = await asyncio.gather(
        *(room.functions.create("hello", code, runtime="python") for code in codes), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in done) == ["AlreadyExists", "FunctionRecord"]
    winner = next(n for n, each in enumerate(done) if not isinstance(each, Exception))
    assert (await code_of(room, "functions/hello")).encode() == codes[winner]
    assert len(list((room.settings.home / "blobs").iterdir())) == 1


@pytest.mark.parametrize(
    ("code", "fields", "kind", "words"),
    [
        (PACKAGE, {"runtime": "cobol"}, BadCode, "there is nodejs, python"),
        (PACKAGE, {"runtime": "python", "handler": "app.run"}, BadCode, "no app.py"),
        (PACKAGE, {"runtime": "python", "handler": "../x.y"}, BadCode, ""),
        (PACKAGE, {}, BadCode, "which runtime"),
        (b"print()", {}, BadRequest, "runtime"),
        (PACKAGE, {"runtime": "python", "memory_mb": 4}, BadRequest, "'memory_mb' is 4; this node allows 8"),
        (PACKAGE, {"runtime": "python", "timeout": 1e9}, BadRequest, "'timeout' is 1000000000 s"),
        (PACKAGE, {"runtime": "python", "timeout": float("nan")}, BadRequest, "'timeout' is nan"),
        (PACKAGE, {"runtime": "python", "network": Network.HOST}, BadRequest, "'network' is 'host'"),
        (b"PK\x03\x04broken", {"runtime": "python"}, BadCode, "broken"),
        (zip_of({"../x": ""}), {"runtime": "python"}, BadCode, "leads out"),
        (bytes(2 * 1024 * 1024), {"runtime": "python"}, PayloadTooLarge, "max_package_mb, 1"),
        (
            zip_of({"main.py": MAIN, "requirements.txt": "stoker-never-published"}),
            {"runtime": "python"},
            BuildFailed,
            "No matching distribution",
        ),
        (zip_of({"main.py": "", "config.json": '{"reuse": "x"}'}), {"runtime": "python"}, BadCode, "reuse"),
    ],
)
async def test_a_bad_deploy_is_told_at_once_and_leaves_nothing(open_room, code, fields, kind, words):
    room = await open_room(max_package_mb=1)
    with pytest.raises(kind) as caught:
        await room.functions.create("hello", code, **fields)
    assert words in str(caught.value)
    assert await nothing_left(room)
    with pytest.raises(NoSuchFunction):
        await room.functions.get("hello")


async def test_a_bad_name_is_refused(room):
    with pytest.raises(BadRequest, match="is no name"):
        await room.functions.create("../x", PACKAGE, runtime="python")


async def test_a_change_of_configuration_builds_nothing_and_is_in_force_for_the_next_call(room):
    await room.functions.create("hello", PACKAGE, runtime="python")
    running = await room.cache.fetch("functions/hello")
    steps = len(room.bench.steps)
    record = await room.functions.change("hello", timeout=60.0, environment={"A": "b"})
    assert (record.config.timeout_s, record.config.memory_mb) == (60, 128)
    assert record.updated_at > record.created_at
    assert len(room.bench.steps) == steps
    pin = room.cache.pin("functions/hello")
    assert pin.version.function.limits.timeout_s == 60
    assert pin.version.function.environment == {"A": "b"}
    assert pin.version.folder == running.version.folder
    assert room.retired == [running.version.function.revision]
    assert running.version.function.limits.timeout_s == 30
    for each in (pin, running):
        each.release()
    record = await room.functions.change("hello", memory_mb=256)
    assert record.config.environment == {"A": "b"}
    record = await room.functions.change(record.id, environment={})
    assert record.config.environment == {}


async def test_a_change_of_code_is_built_and_running_calls_keep_the_old(room):
    await room.functions.create("hello", MAIN.encode(), runtime="python", timeout=7.0)
    running = await room.cache.fetch("functions/hello")
    new = f"# new\n{MAIN}"
    record = await room.functions.change("hello", code=new.encode(), version="2.0.0")
    assert (record.version, record.config.timeout_s) == ("2.0.0", 7)
    assert await code_of(room, "functions/hello") == new
    assert (running.version.folder / "main.py").read_text() == MAIN
    running.release()
    await room.cache._trash.wait_empty()
    assert not running.version.folder.exists()
    assert len(list((room.settings.home / "blobs").iterdir())) == 1


async def test_a_bad_change_changes_nothing(room):
    before = await room.functions.create("hello", PACKAGE, runtime="python")
    for fields, kind in (
        ({"code": zip_of({"other.py": ""})}, BadCode),
        ({"handler": "other.run"}, BadCode),
        ({"memory_mb": 0}, BadRequest),
        ({"name": "other"}, BadRequest),
        ({"runtime": "cobol"}, BadCode),
    ):
        with pytest.raises(kind):
            await room.functions.change("hello", **fields)
    assert await room.functions.get("hello") == before
    assert await code_of(room, "functions/hello") == MAIN
    assert len(list((room.settings.home / "blobs").iterdir())) == 1
    assert len(room.cache.snapshot().entries) == 1


async def test_changes_at_once_come_one_after_another(room):
    await room.functions.create("hello", PACKAGE, runtime="python")
    await asyncio.gather(*(room.functions.change("hello", timeout=float(n)) for n in range(1, 6)))
    record = await room.functions.get("hello")
    pin = room.cache.pin("functions/hello")
    assert pin.version.function.limits.timeout_s == record.config.timeout_s
    pin.release()


async def test_what_is_deleted_is_gone_when_the_last_call_ends(room):
    record = await room.functions.create("hello", PACKAGE, runtime="python")
    running = await room.cache.fetch("functions/hello")
    assert await room.functions.delete(record.id) == record
    assert room.cache.pin("functions/hello") is None
    with pytest.raises(NoSuchFunction, match="'hello'"):
        await room.cache.fetch("functions/hello")
    assert (running.version.folder / "main.py").is_file()
    running.release()
    assert await nothing_left(room)
    with pytest.raises(NoSuchFunction):
        await room.functions.delete("hello")
    await room.functions.create("hello", PACKAGE, runtime="python")


async def test_deleting_during_a_change_leaves_nothing(room):
    await room.functions.create("hello", PACKAGE, runtime="python")
    _, deleted = await asyncio.gather(
        room.functions.change("hello", code=b"# other\n" + MAIN.encode()),
        room.functions.delete("hello"),
        return_exceptions=True,
    )
    assert not isinstance(deleted, Exception)
    assert await nothing_left(room)


async def test_a_function_is_found_by_its_id_too_and_has_one_folder(room):
    record = await room.functions.create("hello", PACKAGE, runtime="python")
    pin = await room.cache.fetch(f"functions/{record.id}")
    assert pin.version.function.key == "functions/hello"
    assert not pin.built
    pin.release()
    await room.functions.delete("hello")
    with pytest.raises(NoSuchFunction):
        await room.cache.fetch(f"functions/{record.id}")


async def test_functions_are_there_after_a_restart_without_a_build(open_room):
    room = await open_room()
    record = await room.functions.create("hello", PACKAGE, runtime="python")
    before = await room.cache.fetch("functions/hello")
    before.release()
    room = await open_room()
    assert await room.functions.list(limit=10) == [record]
    pin = await room.cache.fetch("functions/hello")
    assert not pin.built and room.bench.steps == []
    assert pin.version == before.version
    pin.release()


async def test_a_forgotten_function_is_built_again_from_what_was_deployed(room):
    await room.functions.create("hello", PACKAGE, runtime="python")
    room.cache.forget("functions/hello")
    pin = await room.cache.fetch("functions/hello")
    assert pin.built
    pin.release()
    room.cache.forget_catalog("functions")
    assert await code_of(room, "functions/hello") == MAIN


async def test_packages_of_deployments_cut_short_are_removed_at_the_start(open_room, home):
    room = await open_room()
    await room.functions.create("hello", PACKAGE, runtime="python")
    (home / "blobs" / "0123.4567").write_bytes(b"x")
    await open_room()
    assert len(list((home / "blobs").iterdir())) == 1


async def test_a_package_that_vanished_is_told(room, home):
    await room.functions.create("hello", PACKAGE, runtime="python")
    next((home / "blobs").iterdir()).unlink()
    room.cache.forget("functions/hello")
    with pytest.raises(CodeUnavailable, match="deploy it again"):
        await room.cache.fetch("functions/hello")


async def test_a_package_as_the_worker_front_has_them_can_be_deployed(room):
    record = await room.functions.create("W1", zip_of(hello("W1")))
    assert record.runtime == "python3" and "environment" in CONFIG
    assert await code_of(room, "functions/W1") == MAIN


async def test_functions_of_this_name_in_both_catalogs_are_two(room, put):
    put("W1", hello("W1") | {"W1/main.py": "# front\n"})
    await room.functions.create("W1", PACKAGE, runtime="python")
    assert await code_of(room, "front/W1") == "# front\n"
    assert await code_of(room, "functions/W1") == MAIN
    assert await room.cache.names("functions") == ["W1"]


async def test_an_empty_archive_is_refused(room):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    with pytest.raises(BadCode):
        await room.functions.create("hello", buffer.getvalue(), runtime="python")
    assert await nothing_left(room)
