"""Packages from a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import seaweed
from code_room import hello, zip_of
from stoker.code.sources import open_source
from stoker.errors import BadCode, CodeUnavailable, NoSuchFunction

MEBIBYTE = 1024 * 1024
PACKAGE = zip_of(hello("W1"))

needs_server = pytest.mark.skipif(bool(seaweed.problem()), reason=seaweed.problem())


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead to a server with a bucket of packages."""
    with seaweed.serving(tmp_path_factory.mktemp("seaweed")) as environ:
        objects = {"pkgs/W1.zip": PACKAGE, "pkgs/W2.tar.gz": b"tar", "pkgs/lists.txt": b"W1\nW2\n"}
        seaweed.fill(environ, "functions", objects | {"pkgs/big.zip": bytes(3 * MEBIBYTE)})
        yield environ


@needs_server
async def test_a_package_and_the_list_are_fetched(aws, tmp_path):
    source = open_source("s3://functions/pkgs/", 2 * MEBIBYTE, aws)
    assert await source.names() == ["W1", "W2"]
    package = await source.fetch("W1", tmp_path / "1")
    assert (tmp_path / "1").read_bytes() == PACKAGE
    assert package.address == "s3://functions/pkgs/W1.zip"
    assert (await source.fetch("W2", tmp_path / "2")).address.endswith("W2.tar.gz")


@needs_server
async def test_a_missing_key_is_no_such_function(aws, tmp_path):
    with pytest.raises(NoSuchFunction, match=r"there is no s3://functions/pkgs/W9\.zip"):
        await open_source("s3://functions/pkgs/", MEBIBYTE, aws).fetch("W9", tmp_path / "x")


@needs_server
async def test_a_missing_bucket_is_unavailable(aws, tmp_path):
    with pytest.raises(CodeUnavailable, match="there is no bucket 'elsewhere'"):
        await open_source("s3://elsewhere/", MEBIBYTE, aws).fetch("W1", tmp_path / "x")


@needs_server
async def test_a_large_object_is_refused_before_it_is_read(aws, tmp_path):
    with pytest.raises(BadCode, match="max_package_mb is 2"):
        await open_source("s3://functions/pkgs/", 2 * MEBIBYTE, aws).fetch("big", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size == 0


@needs_server
async def test_bad_credentials_are_told_and_not_shown(aws, tmp_path):
    environ = aws | {"AWS_SECRET_ACCESS_KEY": "hidden-word"}
    with pytest.raises(CodeUnavailable, match="could not be read") as caught:
        await open_source("s3://functions/pkgs/", MEBIBYTE, environ).fetch("W1", tmp_path / "x")
    assert "hidden-word" not in caught.value.message
    assert len(caught.value.message) < 500


async def test_an_unreachable_endpoint_is_told(free_port, tmp_path):
    environ = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}",
    }
    with pytest.raises(CodeUnavailable, match="could not be read"):
        await open_source("s3://functions/pkgs/", MEBIBYTE, environ).fetch("W1", tmp_path / "x")


def test_without_the_extra_it_says_what_to_install():
    program = (
        "import sys; sys.modules['obstore'] = None; sys.modules['obstore.store'] = None\n"
        "from stoker.code.sources import open_source\n"
        "open_source('s3://functions/pkgs/', 1)"
    )
    path = {"PYTHONPATH": ":".join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=path, capture_output=True, text=True, check=False
    )
    assert "Unsupported: packages at s3:// need obstore; do: pip install stoker[s3]" in done.stderr
