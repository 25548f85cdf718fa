"""Packages on a web server: `<prefix>W1.zip`, then `<prefix>W1.tar.gz`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec

from stoker.code.sources.contract import LIST, MAX_LIST_BYTES, SUFFIXES, Intake, Package, Source, check_name
from stoker.code.sources.prefix import bare
from stoker.errors import CodeUnavailable, NoSuchFunction

CHUNK_BYTES = 256 * 1024
MAX_REDIRECTS = 5


class Patience(msgspec.Struct, frozen=True):
    """How long a server may take, in seconds."""

    connect_s: float = 5.0
    silence_s: float = 15.0
    """Between two pieces of an answer, the wait for its first one included."""
    whole_s: float = 300.0


class WebSource(Source):
    """A prefix of addresses on a web server. The proxy settings of the environment hold."""

    def __init__(self, prefix: str, max_bytes: int, patience: Patience | None = None) -> None:
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._patience = patience or Patience()

    def __repr__(self) -> str:
        return f"<WebSource {bare(self._prefix)}>"

    async def fetch(self, name: str, into: Path) -> Package:
        check_name(name)
        for suffix in SUFFIXES:
            async with self._get(f"{self._prefix}{name}{suffix}") as response:
                if response.status == HTTPStatus.NOT_FOUND:
                    continue
                self._check(response.status, f"{name}{suffix}")
                return await self._receive(response, into, bare(f"{self._prefix}{name}{suffix}"))
        address = bare(f"{self._prefix}{name}.zip")
        raise NoSuchFunction(f"no function {name!r}: {address} answered 404 Not Found")

    async def _receive(self, response: aiohttp.ClientResponse, into: Path, address: str) -> Package:
        with Intake(into, self._max_bytes, address) as intake:
            intake.expect(response.content_length)
            try:
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    await intake.take(chunk)
            except aiohttp.ClientPayloadError as error:
                raise CodeUnavailable(f"{address} broke off after {intake.size_bytes} bytes") from error
            return await intake.finish()

    async def list_text(self) -> bytes:
        async with self._get(self._prefix + LIST) as response:
            self._check(response.status, LIST)
            return await response.content.read(MAX_LIST_BYTES)

    def _check(self, status: int, file: str) -> None:
        if status != HTTPStatus.OK:
            raise CodeUnavailable(f"{bare(self._prefix + file)} answered {status} {_phrase(status)}".strip())

    @asynccontextmanager
    async def _get(self, address: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status; our errors for what can go wrong on the way."""
        shown = bare(address)
        try:
            async with (
                self._session() as session,
                session.get(address, max_redirects=MAX_REDIRECTS) as response,
            ):
                yield response
        except TimeoutError as error:
            raise CodeUnavailable(f"{shown} did not answer in time") from error
        except aiohttp.TooManyRedirects as error:
            raise CodeUnavailable(f"{shown} redirects more than {MAX_REDIRECTS} times") from error
        except aiohttp.ClientConnectorCertificateError as error:
            reason = getattr(error.certificate_error, "verify_message", "") or "it does not verify"
            raise CodeUnavailable(f"{shown} has a certificate that is not trusted: {reason}") from error
        except aiohttp.ClientConnectorError as error:
            reason = _words(error.os_error)
            raise CodeUnavailable(f"{shown} cannot be reached: {reason}") from error
        except aiohttp.ClientError as error:
            raise CodeUnavailable(f"{shown} could not be read: {type(error).__name__}") from error

    def _session(self) -> aiohttp.ClientSession:
        patience = self._patience
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=patience.whole_s, sock_connect=patience.connect_s, sock_read=patience.silence_s
            ),
            # The bytes as they lie on the server: a server that says of W1.tar.gz "tar, gzip-encoded"
            # must not make us store the bare tar.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "stoker"},
            trust_env=True,
        )


def _words(error: OSError) -> str:
    """The system's words alone: asyncio's repeat the address, some errors' the credentials."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__  # a resolver's error has a negative number


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
