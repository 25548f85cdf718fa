"""Packages from folders, and what is common to all sources."""

from __future__ import annotations

import hashlib
import os
import tarfile

import pytest

from code_room import hello, tar_of, zip_of
from stoker.code.sources import check_name, open_source
from stoker.code.sources.contract import parse_names
from stoker.code.sources.prefix import bare
from stoker.errors import BadCode, BadRequest, CodeUnavailable, NoSuchFunction, SettingsError

MEBIBYTE = 1024 * 1024


@pytest.fixture
def source(packages):
    return open_source(f"file://{packages}/", MEBIBYTE)


async def test_a_zip_comes_first_then_a_tar_then_a_folder(source, packages, tmp_path):
    (packages / "W1").mkdir()
    (packages / "W1" / "main.py").write_text("folder")
    from_folder = await source.fetch("W1", tmp_path / "1")
    with tarfile.open(tmp_path / "1") as archive:
        assert archive.getnames() == ["W1/main.py"]
    (packages / "W1.tar.gz").write_bytes(tar_of(hello("W1")))
    from_tar = await source.fetch("W1", tmp_path / "2")
    data = zip_of(hello("W1"))
    (packages / "W1.zip").write_bytes(data)
    from_zip = await source.fetch("W1", tmp_path / "3")
    assert from_zip.digest == hashlib.sha256(data).hexdigest()
    assert from_zip.size_bytes == len(data)
    assert len({from_folder.digest, from_tar.digest, from_zip.digest}) == 3


async def test_the_same_folder_is_the_same_package(source, packages, tmp_path):
    (packages / "W1" / "sub").mkdir(parents=True)
    (packages / "W1" / "sub" / "a").write_text("a")
    os.symlink("sub/a", packages / "W1" / "link")
    first = await source.fetch("W1", tmp_path / "1")
    os.utime(packages / "W1" / "sub" / "a", (1, 1))
    assert (await source.fetch("W1", tmp_path / "2")).digest == first.digest
    (packages / "W1" / "sub" / "a").write_text("b")
    assert (await source.fetch("W1", tmp_path / "3")).digest != first.digest


async def test_a_missing_package_names_where_it_was_looked_for(source, packages, tmp_path):
    with pytest.raises(NoSuchFunction, match=f"{packages}/W9.zip"):
        await source.fetch("W9", tmp_path / "x")


async def test_a_missing_folder_of_packages_is_not_a_missing_function(packages, tmp_path):
    source = open_source(f"{packages}/nowhere/", MEBIBYTE)
    with pytest.raises(CodeUnavailable, match="nowhere does not exist"):
        await source.fetch("W1", tmp_path / "x")


async def test_a_pipe_with_a_packages_name_does_not_hang(source, packages, tmp_path):
    os.mkfifo(packages / "W1.zip")
    with pytest.raises(CodeUnavailable, match="is not a file"):
        await source.fetch("W1", tmp_path / "x")


async def test_a_package_above_the_limit_is_refused(source, packages, tmp_path):
    (packages / "W1.zip").write_bytes(bytes(MEBIBYTE + 1))
    with pytest.raises(BadCode, match="max_package_mb is 1"):
        await source.fetch("W1", tmp_path / "x")


async def test_a_folder_above_the_limit_is_refused_and_nothing_of_it_stays(source, packages, tmp_path):
    (packages / "W1").mkdir()
    (packages / "W1" / "big").write_bytes(bytes(MEBIBYTE + 1))
    with pytest.raises(BadCode, match="max_package_mb, 1"):
        await source.fetch("W1", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


async def test_an_empty_package_is_unavailable(source, packages, tmp_path):
    (packages / "W1.zip").write_bytes(b"")
    with pytest.raises(CodeUnavailable, match="is empty"):
        await source.fetch("W1", tmp_path / "x")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a b", "a\n", "-a", ".a", "ä", "a" * 129, "a\0", "a?b", "a%2fb"]
)
async def test_a_bad_name_never_reaches_the_disk(source, tmp_path, name):
    with pytest.raises(BadRequest, match="is no name of a function"):
        await source.fetch(name, tmp_path / "x")


@pytest.mark.parametrize("name", ["W1", "a", "7", "a.b-c_D", "a" * 128])
def test_a_good_name_is_itself(name):
    assert check_name(name) == name


def test_a_list_has_one_name_a_line_each_once():
    assert parse_names(b"\xef\xbb\xbfW1\r\nW2\n\n  W3 \nW1\n") == ["W1", "W2", "W3"]
    with pytest.raises(BadRequest, match="W 4"):
        parse_names(b"W1\nW 4\n")


async def test_the_list_of_a_folder_is_read(source, packages):
    with pytest.raises(CodeUnavailable, match=r"lists\.txt"):
        await source.names()
    (packages / "lists.txt").write_text("W1\nW2\n")
    assert await source.names() == ["W1", "W2"]


async def test_a_prefix_may_be_a_path_a_folder_or_half_a_name(packages, tmp_path):
    (packages / "test-W1.zip").write_bytes(zip_of(hello("W1")))
    (packages / "a b").mkdir()
    (packages / "a b" / "W1.zip").write_bytes(zip_of(hello("W1")))
    prefixes = [f"{packages}/test-", f"{packages}/a b", f"file://{packages}/a%20b"]
    fetched = [await open_source(p, MEBIBYTE).fetch("W1", tmp_path / str(n)) for n, p in enumerate(prefixes)]
    assert len({package.digest for package in fetched}) == 1


@pytest.mark.parametrize("prefix", ["ftp://host/", "file://host/x/", "http://", "s3://", "data:x"])
def test_a_prefix_of_another_kind_names_those_there_are(prefix):
    with pytest.raises(SettingsError, match="there is http"):
        open_source(prefix, MEBIBYTE)


def test_an_address_is_shown_without_its_secrets():
    assert bare("https://me:secret@host:81/a/?token=secret") == "https://host:81/a/?…"
    assert bare("/srv/packages/") == "/srv/packages/"
