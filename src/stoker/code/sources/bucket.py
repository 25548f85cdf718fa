"""Packages in an S3 bucket: keys `<prefix>W1.zip`, then `<prefix>W1.tar.gz`. Needs the extra `s3`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stoker.code.sources.contract import LIST, MAX_LIST_BYTES, SUFFIXES, Intake, Package, Source, check_name
from stoker.errors import CodeUnavailable, NoSuchFunction, Unsupported
from stoker.types import MEBIBYTE

WHOLE_S = 300.0
CONNECT_S = 5
SILENCE_S = 15
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class BucketSource(Source):
    """A prefix of keys in one bucket; credentials, region and endpoint from the `AWS_*` variables."""

    def __init__(self, bucket: str, prefix: str, max_bytes: int, environ: Mapping[str, str]) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._store = _connect(bucket, environ)

    def __repr__(self) -> str:
        return f"<BucketSource {self._address('')}>"

    def _address(self, file: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{file}"

    async def fetch(self, name: str, into: Path) -> Package:
        check_name(name)
        for suffix in SUFFIXES:
            async with self._get(name + suffix) as found:
                if found is not None:
                    return await self._receive(found, into, self._address(name + suffix))
        raise NoSuchFunction(f"no function {name!r}: there is no {self._address(name)}.zip")

    async def _receive(self, found: Any, into: Path, address: str) -> Package:
        with Intake(into, self._max_bytes, address) as intake:
            intake.expect(found.meta["size"])
            async for chunk in found.stream(min_chunk_size=MEBIBYTE):
                await intake.take(bytes(chunk))
            return await intake.finish()

    async def list_text(self) -> bytes:
        async with self._get(LIST) as found:
            if found is None:
                raise CodeUnavailable(f"there is no {self._address(LIST)}")
            if found.meta["size"] > MAX_LIST_BYTES:
                raise CodeUnavailable(f"{self._address(LIST)} is larger than {MAX_LIST_BYTES} bytes")
            return bytes(await found.bytes_async())

    @asynccontextmanager
    async def _get(self, file: str) -> AsyncIterator[Any]:
        """The object, or None where there is none."""
        import obstore
        from obstore.exceptions import BaseError, NotFoundError

        try:
            async with asyncio.timeout(WHOLE_S):
                try:
                    found = await obstore.get_async(self._store, self._prefix + file)
                except (NotFoundError, FileNotFoundError) as error:
                    if "NoSuchBucket" in str(error):
                        raise CodeUnavailable(f"there is no bucket {self._bucket!r}") from error
                    found = None
                yield found
        except TimeoutError as error:
            raise CodeUnavailable(f"{self._address(file)} did not arrive in {WHOLE_S:g} s") from error
        except BaseError as error:
            raise CodeUnavailable(f"{self._address(file)} could not be read: {_reason(error)}") from error


def _connect(bucket: str, environ: Mapping[str, str]) -> Any:
    """A store over one bucket; nothing is sent yet."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        raise Unsupported("packages at s3:// need obstore; do: pip install stoker[s3]") from error
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), "")
    client: Any = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=SILENCE_S),
        "timeout": timedelta(seconds=WHOLE_S),
        "allow_http": _is_loopback(endpoint) or environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
    }
    retry: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=2 * SILENCE_S)}
    try:
        return S3Store(bucket, config=_config(environ, endpoint), client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise CodeUnavailable(f"s3://{bucket} cannot be used: {_reason(error)}") from error


def _config(environ: Mapping[str, str], endpoint: str) -> Any:
    """What the client would take from its process's environment, from the one we were given."""
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION")
    config = {f"aws_{name.lower()}": environ[f"AWS_{name}"] for name in names if environ.get(f"AWS_{name}")}
    return config | ({"aws_endpoint": endpoint} if endpoint else {})


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _reason(error: Exception) -> str:
    """The innermost cause in one line: the client's own text is a page with a trace of every try."""
    text = " ".join(str(error).split("Debug source")[0].split())
    return text if len(text) <= 300 else text[:300] + "…"
