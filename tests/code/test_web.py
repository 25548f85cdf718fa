"""Packages from a real web server, which answers in every way a server can."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from code_room import hello, zip_of
from stoker.code.sources import open_source
from stoker.code.sources.web import Patience, WebSource
from stoker.errors import BadCode, CodeUnavailable, NoSuchFunction

MEBIBYTE = 1024 * 1024
QUICK = Patience(connect_s=0.5, silence_s=0.3, whole_s=5)
PACKAGE = zip_of(hello("W1"))

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """Starts a server that answers everything by one function; its address."""
    runners = []

    async def start(answer: Answer) -> str:
        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/"

    yield start
    for runner in runners:
        await runner.cleanup()


def files(**contents: bytes) -> Answer:
    """A server with these files."""
    named = {name.replace("_", "."): content for name, content in contents.items()}

    async def answer(request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        return web.Response(body=named[name]) if name in named else web.Response(status=404)

    return answer


async def test_a_package_and_the_list_are_fetched(serve, tmp_path: Path):
    source = open_source(await serve(files(W1_zip=PACKAGE, lists_txt=b"W1\n")), MEBIBYTE)
    package = await source.fetch("W1", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == PACKAGE
    assert package.size_bytes == len(PACKAGE)
    assert await source.names() == ["W1"]


async def test_a_tar_is_taken_where_there_is_no_zip(serve, tmp_path):
    source = open_source(await serve(files(**{"W1.tar.gz": b"tar"})), MEBIBYTE)
    assert (await source.fetch("W1", tmp_path / "x")).address.endswith("W1.tar.gz")


async def test_a_tar_that_the_server_calls_encoded_arrives_as_it_is(serve, tmp_path):
    """As servers do that see a .gz and say `Content-Encoding: gzip`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8bnot really", headers={"Content-Encoding": "gzip"})

    await open_source(await serve(answer), MEBIBYTE).fetch("W1", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"\x1f\x8bnot really"


async def test_a_missing_package_is_named_without_credentials(serve, tmp_path):
    address = (await serve(files())).replace("http://", "http://me:secret@")
    with pytest.raises(NoSuchFunction) as caught:
        await open_source(address, MEBIBYTE).fetch("W9", tmp_path / "x")
    assert "/W9.zip answered 404" in caught.value.message
    assert "secret" not in caught.value.message


async def test_credentials_of_the_prefix_are_sent(serve, tmp_path):
    seen = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=PACKAGE)

    address = (await serve(answer)).replace("http://", "http://me:secret@")
    await open_source(address, MEBIBYTE).fetch("W1", tmp_path / "x")
    assert seen == ["Basic bWU6c2VjcmV0"]


@pytest.mark.parametrize("status", [204, 401, 403, 429, 500, 503, 599])
async def test_another_status_is_told(serve, tmp_path, status):
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    with pytest.raises(CodeUnavailable, match=f"W1.zip answered {status}"):
        await open_source(await serve(answer), MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_a_server_that_never_answers_is_given_up(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    source = WebSource(await serve(answer), MEBIBYTE, QUICK)
    with pytest.raises(CodeUnavailable, match="did not answer in time"):
        await source.fetch("W1", tmp_path / "x")


async def test_a_listener_that_never_speaks_is_given_up(free_port, tmp_path):
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", free_port):
        source = WebSource(f"http://127.0.0.1:{free_port}/", MEBIBYTE, QUICK)
        with pytest.raises(CodeUnavailable, match="did not answer in time"):
            await source.fetch("W1", tmp_path / "x")


async def test_a_server_that_stops_in_the_middle_is_given_up(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x" * 500)
        await asyncio.Event().wait()
        return response

    source = WebSource(await serve(answer), MEBIBYTE, QUICK)
    with pytest.raises(CodeUnavailable, match="did not answer in time"):
        await source.fetch("W1", tmp_path / "x")


async def test_a_transfer_that_never_ends_is_given_up(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        tick = asyncio.Event()
        while True:
            await response.write(b"x")
            try:
                async with asyncio.timeout(0.05):
                    await tick.wait()
            except TimeoutError:
                pass

    source = WebSource(await serve(answer), MEBIBYTE, Patience(silence_s=5, whole_s=0.5))
    with pytest.raises(CodeUnavailable, match="did not answer in time"):
        await source.fetch("W1", tmp_path / "x")


async def test_a_connection_cut_in_the_middle_is_told(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x" * 500)
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(CodeUnavailable, match="broke off after 500 bytes"):
        await open_source(await serve(answer), MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_nonsense_instead_of_http_is_told(free_port, tmp_path):
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", free_port):
        with pytest.raises(CodeUnavailable, match="could not be read"):
            await open_source(f"http://127.0.0.1:{free_port}/", MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_a_package_above_the_limit_ends_while_it_streams(serve, tmp_path):
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(MEBIBYTE))
            sent += MEBIBYTE

    with pytest.raises(BadCode, match="max_package_mb is 1"):
        await open_source(await serve(answer), MEBIBYTE).fetch("W1", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size <= 2 * MEBIBYTE


async def test_a_size_above_the_limit_is_refused_by_its_header(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1 << 40
        await response.prepare(request)
        return response

    with pytest.raises(BadCode, match="larger than this node takes"):
        await open_source(await serve(answer), MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_redirects_are_followed_but_not_for_ever(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/loop/"):
            raise web.HTTPFound(request.path)
        if request.path == "/W1.zip":
            raise web.HTTPFound("/moved/W1.zip")
        return web.Response(body=PACKAGE)

    address = await serve(answer)
    await open_source(address, MEBIBYTE).fetch("W1", tmp_path / "x")
    with pytest.raises(CodeUnavailable, match="redirects more than 5 times"):
        await open_source(f"{address}loop/", MEBIBYTE).fetch("W1", tmp_path / "y")


async def test_a_redirect_never_leads_to_a_file(serve, tmp_path):
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    with pytest.raises(CodeUnavailable, match="could not be read"):
        await open_source(await serve(answer), MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_an_unreachable_host_is_named_without_credentials(free_port, tmp_path):
    with pytest.raises(CodeUnavailable) as caught:
        await open_source(f"http://me:secret@127.0.0.1:{free_port}/", MEBIBYTE).fetch("W1", tmp_path / "x")
    address = f"http://127.0.0.1:{free_port}/W1.zip"
    assert caught.value.message == f"{address} cannot be reached: Connection refused"


async def test_a_host_without_a_name_is_told(tmp_path):
    with pytest.raises(CodeUnavailable, match=r"nowhere\.invalid/W1\.zip cannot be reached"):
        await open_source("http://nowhere.invalid/", MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_a_certificate_that_nobody_vouches_for_is_told(free_port, tmp_path):
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subject = ["-subj", "/CN=localhost", "-days", "1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(nothing, "localhost", free_port, ssl=context):
        with pytest.raises(CodeUnavailable, match=r"certificate that is not trusted: self.signed"):
            await open_source(f"https://localhost:{free_port}/", MEBIBYTE).fetch("W1", tmp_path / "x")


async def test_a_server_that_speaks_no_tls_is_told(serve, tmp_path):
    address = (await serve(files())).replace("http://", "https://")
    with pytest.raises(CodeUnavailable, match=r"W1\.zip"):
        await open_source(address, MEBIBYTE).fetch("W1", tmp_path / "x")
