from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from stoker.errors import AlreadyExists, Broken, NodeError, StorageFull, Unsupported
from stoker.records.making import of_error
from stoker.records.model import FunctionRecord, InvocationRecord
from stoker.records.store import MAX_HELD, Records
from stoker.types import Invocation, Phases


def invocation(number: int, **changes: object) -> InvocationRecord:
    record = InvocationRecord(
        id=f"{number:032x}",
        function="functions/hello",
        door="functions",
        status="ok",
        created_at=1.5,
        finished_at=2.5,
    )
    return msgspec.structs.replace(record, **changes)


def function(number: int, **changes: object) -> FunctionRecord:
    record = FunctionRecord(
        id=f"{number:032x}",
        name=f"f{number}",
        runtime="python",
        handler="main.lambda_handler",
        digest="d",
        created_at=1.0,
        updated_at=1.0,
    )
    return msgspec.structs.replace(record, **changes)


@contextlib.asynccontextmanager
async def opened(path: Path, **options: int) -> AsyncIterator[Records]:
    records = Records(path, **options)
    await records.open()
    try:
        yield records
    finally:
        await records.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


async def test_what_was_added_is_read_back_at_once(path: Path) -> None:
    async with opened(path) as records:
        records.add(invocation(1))
        assert await records.invocation(invocation(1).id) == invocation(1)
        assert await records.invocation("unknown") is None


async def test_what_was_added_is_there_after_closing_and_opening(path: Path) -> None:
    async with opened(path) as records:
        records.add(invocation(1))
    async with opened(path) as records:
        assert await records.invocation(invocation(1).id) == invocation(1)


async def test_a_record_reaches_the_disk_without_anybody_asking(path: Path) -> None:
    async with opened(path) as records:
        records.add(invocation(1))
        with contextlib.closing(sqlite3.connect(path)) as look:
            while look.execute("SELECT coalesce(sum(records), 0) FROM pages").fetchone() == (0,):
                await asyncio.sleep(0)


async def test_every_field_and_every_byte_comes_back(path: Path) -> None:
    everything = invocation(
        1,
        status="function_error",
        error_type="Käse",
        error_message="quotes ' \" and \0 and \N{SNOWMAN}",
        error_stack="line\nline",
        result=bytes(range(256)),
        stdout=bytes(range(256)) * 4,
        stderr=b"\xff\xfe",
        stdout_cut=True,
        stderr_cut=True,
        phases=Phases(admit=0.1, code=0.2, sandbox=0.3, init=0.4, run=1e9),
        cpu_ms=1.25,
        memory_peak_bytes=2**40,
        sandbox="hello-1",
        source="warm",
        built=True,
    )
    async with opened(path) as records:
        records.add(everything)
        assert await records.invocation(everything.id) == everything


async def test_text_that_is_no_unicode_does_not_lose_its_neighbours(path: Path) -> None:
    async with opened(path) as records:
        records.add(invocation(1))
        records.add(invocation(2, error_message="half \ud83d a face"))
        kept = await records.invocations()
        assert [record.error_message for record in kept] == ["half ? a face", ""]


async def test_of_two_records_of_one_id_the_first_is_found(path: Path) -> None:
    async with opened(path) as records:
        for status in ("ok", "crashed"):
            records.add(invocation(1, status=status))
        found = await records.invocation(invocation(1).id)
        assert found is not None
        assert found.status == "ok"


async def test_a_batch_larger_than_a_statement_arrives_whole_and_in_order(path: Path) -> None:
    many = [invocation(number) for number in range(1300)]
    async with opened(path) as records:
        for record in many:
            records.add(record)
        assert await records.invocations(limit=2000) == many[::-1]


async def test_large_logs_arrive_whole(path: Path) -> None:
    large = [invocation(number, stdout=bytes([number]) * 1_500_000) for number in range(8)]
    async with opened(path) as records:
        for record in large:
            records.add(record)
        assert await records.invocations() == large[::-1]


async def test_invocations_are_listed_by_function_newest_first_in_pages(path: Path) -> None:
    async with opened(path) as records:
        for number in range(6):
            records.add(invocation(number, function=f"functions/{'ab'[number % 2]}"))
        first = await records.invocations("functions/a", limit=2)
        rest = await records.invocations("functions/a", limit=2, before=first[-1].id)
    assert [int(record.id, 16) for record in first] == [4, 2]
    assert [int(record.id, 16) for record in rest] == [0]


async def test_who_follows_gets_what_ended_since_oldest_first(path: Path) -> None:
    async with opened(path) as records:
        for number in (5, 3, 4):
            records.add(invocation(number))
        since = await records.invocations("functions/hello", after=invocation(5).id)
        everything = await records.invocations("functions/hello", after="forgotten")
    assert [int(record.id, 16) for record in since] == [3, 4]
    assert [int(record.id, 16) for record in everything] == [5, 3, 4]


async def test_only_the_newest_are_kept(path: Path) -> None:
    async with opened(path, keep=10) as records:
        for number in range(1500):
            records.add(invocation(number))
    async with opened(path, keep=10) as records:
        kept = await records.invocations(limit=2000)
    assert [int(record.id, 16) for record in kept] == list(range(1499, 1489, -1))


async def test_keeping_none_writes_none(path: Path) -> None:
    async with opened(path, keep=0) as records:
        records.add(invocation(1))
        assert await records.invocations() == []
        assert records.dropped == 0


async def test_the_file_stays_below_its_size(path: Path) -> None:
    limit = 4 * 1024 * 1024
    async with opened(path, keep_bytes=limit) as records:
        for number in range(4000):
            records.add(invocation(number, stdout=os.urandom(4000)))
            if number % 100 == 0:
                await records.invocation("wait for the disk")
    with contextlib.closing(sqlite3.connect(path)) as look:
        (rows,) = look.execute("SELECT coalesce(sum(records), 0) FROM pages").fetchone()
    assert 0 < rows < 1000
    async with opened(path) as records:
        assert await records.invocation(invocation(3999).id) is not None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A disk that does not answer."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


async def test_a_disk_that_cannot_follow_costs_records_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as records:
        with locked(path):
            for number in range(MAX_HELD + 100):
                records.add(invocation(number))
            assert records.dropped == 100
        assert len(await records.invocations(limit=MAX_HELD + 100)) == MAX_HELD
        records.add(invocation(MAX_HELD + 200))
        assert await records.invocation(invocation(MAX_HELD + 200).id) is not None
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        f"invocation records are dropped: {MAX_HELD} records wait for the disk",
        "invocation records are written again; 100 were dropped so far",
    ]


async def test_logs_that_wait_for_the_disk_are_bounded_in_bytes(path: Path) -> None:
    async with opened(path) as records:
        with locked(path):
            for number in range(80):
                records.add(invocation(number, stdout=b"x" * 1024 * 1024))
            assert records.dropped == 80 - 64


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_costs_records_and_nothing_else(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(small_disk / "records.sqlite") as records:
        records.add(invocation(1))
        for number in range(2, 40):
            records.add(invocation(number, stdout=os.urandom(100_000)))
            await records.invocation(invocation(number).id)
        assert records.dropped > 20
        assert await records.invocation(invocation(1).id) == invocation(1)
        with pytest.raises(NodeError, match=r"no space left for .*; make room, or lower record_keep"):
            await records.put_function(function(1, metadata={"large": "x" * 2_000_000}))
    assert "no space left for" in caplog.text


async def test_adding_to_a_closed_database_drops_and_does_not_raise(path: Path) -> None:
    async with opened(path) as records:
        pass
    records.add(invocation(1))
    await records.close()
    assert records.dropped == 1
    with pytest.raises(Broken, match="is not open"):
        await records.invocations()


async def refusal(path: Path) -> NodeError:
    with pytest.raises(NodeError) as caught:
        async with opened(path):
            pass
    return caught.value


async def test_a_file_that_is_no_database_is_named_with_the_way_out(path: Path) -> None:
    path.write_bytes(b"these are not the records you look for" * 100)
    error = await refusal(path)
    assert isinstance(error, Broken)
    assert error.message == (
        f"{path} is damaged (file is not a database); stop the node and move the file away to start with "
        "empty records, or restore it from a backup"
    )


async def test_a_damaged_page_is_said_when_it_is_met(path: Path) -> None:
    async with opened(path) as records:
        for number in range(1000):
            records.add(invocation(number))
    whole = bytearray(path.read_bytes())
    whole[4096:] = os.urandom(len(whole) - 4096)
    path.write_bytes(whole)
    with pytest.raises(Broken, match="is damaged"):
        async with opened(path) as records:
            await records.invocations()


async def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 7")
    error = await refusal(path)
    assert isinstance(error, Unsupported)
    assert "was written by a newer Stoker (its schema is 7, this one knows 1)" in error.message


async def test_pages_from_before_limits_were_told_are_read(path: Path) -> None:
    async with opened(path) as records:
        records.add(invocation(1, status="crashed", cpu_ms=2.0))
    now = {"limit", "exit_code", "signal", "network_in_bytes", "network_out_bytes"}
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        ((page,),) = database.execute("SELECT page FROM pages")
        (fields,) = msgspec.msgpack.decode(page)
        assert not now & fields.keys()  # written as it was before
    async with opened(path) as records:
        (read,) = await records.invocations()
        assert (read.status, read.limit, read.exit_code, read.cpu_ms) == ("crashed", "", None, 2.0)


def test_what_the_node_could_not_do_has_a_record_too() -> None:
    asked = Invocation(id="1" * 32, function="functions/f", body=b"", door="functions", deadline=0.0)
    record = of_error(asked, StorageFull("no room " + "x" * 100_000), 1.5)
    assert (record.status, record.error_type, record.door) == ("storage_full", "storage_full", "functions")
    assert len(record.error_message) < 10_000


async def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url)")
    error = await refusal(path)
    assert error.message == (f"{path} is a database of another program; move it away, or choose another home")


async def test_nobody_else_may_read_what_functions_printed(path: Path) -> None:
    async with opened(path) as records:
        records.add(invocation(1))
        await records.invocations()
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


async def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "nowhere" / "records.sqlite")
    assert "unable to open database file" in error.message


async def test_functions_are_found_by_name_and_by_id(path: Path) -> None:
    async with opened(path) as records:
        await records.put_function(function(1))
        assert await records.function("f1") == function(1)
        assert await records.function(function(1).id) == function(1)
        assert await records.function("f2") is None


async def test_a_function_is_replaced_by_the_same_id_only(path: Path) -> None:
    async with opened(path) as records:
        await records.put_function(function(1))
        await records.put_function(function(1, handler="other.handler", name="new"))
        assert await records.function("f1") is None
        assert (await records.functions())[0].handler == "other.handler"
        with pytest.raises(AlreadyExists, match="there is a function 'new' already"):
            await records.put_function(function(2, name="new"))


async def test_functions_are_listed_by_name_in_pages(path: Path) -> None:
    async with opened(path) as records:
        for number in (3, 1, 2):
            await records.put_function(function(number))
        pages = [await records.functions(limit=2, offset=offset) for offset in (0, 2, 4)]
        named = await records.functions(name="f2")
    assert [[one.name for one in page] for page in pages] == [["f1", "f2"], ["f3"], []]
    assert named == [function(2)]


async def test_a_deleted_function_is_gone_for_good(path: Path) -> None:
    async with opened(path) as records:
        await records.put_function(function(1))
        assert await records.delete_function(function(1).id)
        assert not await records.delete_function(function(1).id)
    async with opened(path) as records:
        assert await records.functions() == []
