"""Deployed functions: made, shown, changed, deleted; what is deployed is built at once or refused at once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import msgspec
import uuid_utils

from stoker.code.archive import is_archive, pack_source
from stoker.code.cache import Cache, Pin
from stoker.code.deployed import Records, key_of, wish_of
from stoker.code.describing import Wish, check, read_config_if_any
from stoker.code.sources import check_name
from stoker.code.turns import Turns
from stoker.errors import AlreadyExists, BadRequest, NoSuchFunction, PayloadTooLarge
from stoker.records.model import FunctionConfig, FunctionRecord
from stoker.types import Network

WISHES = {
    "runtime": "runtime",
    "handler": "handler",
    "timeout": "timeout_s",
    "cpu_time": "cpu_time_s",
    "memory_mb": "memory_mb",
    "max_concurrency": "max_concurrency",
    "environment": "environment",
    "reuse": "reuse",
    "concurrency": "concurrency",
    "network": "network",
    "egress": "egress",
    "sandbox": "sandbox",
    "zygote": "zygote",
    "interpreter": "interpreter",
}
BESIDE = ("version", "metadata")


class Functions:
    """The functions that were deployed on this node. One change at a time for each name."""

    def __init__(self, cache: Cache, records: Records) -> None:
        self._cache = cache
        self._catalog = cache.deployed
        self._records = records
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<Functions over {self._records!r}>"

    async def get(self, ref: str) -> FunctionRecord:
        """By name or id. Raises `NoSuchFunction`."""
        record = await self._records.function(ref)
        if record is None:
            raise NoSuchFunction(f"there is no function {ref!r}")
        return record

    async def list(self, limit: int, offset: int = 0, name: str | None = None) -> list[FunctionRecord]:
        """By name, a page at a time."""
        return await self._records.functions(limit=limit, offset=offset, name=name)

    async def languages(self) -> set[tuple[str, Network]]:
        """The languages and networks that deployed functions ask for by name."""
        return await self._catalog.languages()

    async def create(self, name: str, code: bytes, **fields: Any) -> FunctionRecord:
        """Deploy a zip, a tar.gz or one source file; the next call runs it.

        `fields` are those of the API, times in seconds. Raises `AlreadyExists`, `BadRequest`, `BadCode`,
        `BuildFailed` and whatever else a build can meet; then nothing is left of it.
        """
        check_name(name)
        wish = self._wish(fields)
        async with self._turns.of(name):
            if await self._records.function(name) is not None:
                raise AlreadyExists(f"there is a function {name!r} already")
            package = await self._package(code, wish)
            now = time.time()
            record = FunctionRecord(
                id=uuid_utils.uuid7().hex,
                name=name,
                runtime=wish.runtime or "",
                handler=wish.handler or "",
                digest=_digest(package),
                created_at=now,
                updated_at=now,
                **_beside(fields),
            )
            return await self._deploy(record, wish, package)

    async def change(self, ref: str, **fields: Any) -> FunctionRecord:
        """Change any field but the name; running calls end under the old ones. Raises like `create`."""
        name = (await self.get(ref)).name
        if fields.get("name", name) != name:
            raise BadRequest(f"the name of {name!r} cannot change; create another function")
        changes = self._wish(fields)
        async with self._turns.of(name):
            before = await self.get(name)
            wish = changes.over(wish_of(before))
            package = await self._package(fields["code"], wish) if "code" in fields else None
            digest = before.digest if package is None else _digest(package)
            record = msgspec.structs.replace(before, digest=digest, updated_at=time.time(), **_beside(fields))
            after = await self._deploy(record, wish, package)
            if after.digest != before.digest:
                self._catalog.remove_package(before)
            return after

    async def delete(self, ref: str) -> FunctionRecord:
        """No call from now on; running ones finish, then its code goes. Raises `NoSuchFunction`."""
        name = (await self.get(ref)).name
        async with self._turns.of(name):
            record = await self.get(name)
            await self._records.delete_function(record.id)
            self._cache.forget(key_of(name))
            self._catalog.remove_package(record)
            return record

    def _wish(self, fields: dict[str, Any]) -> Wish:
        wish = Wish(**{WISHES[key]: value for key, value in fields.items() if key in WISHES})
        check(wish, self._cache.terms, BadRequest)
        return wish

    async def _package(self, code: bytes, wish: Wish) -> bytes:
        """The archive itself, or one made of the single source file that came instead."""
        if len(code) > self._cache.terms.max_package_bytes:
            raise PayloadTooLarge(
                f"the code is larger than max_package_mb, {self._cache.terms.max_package_mb}"
            )
        if is_archive(code):
            return code
        if wish.runtime is None:
            raise BadRequest("one source file needs its runtime said")
        choice = await asyncio.to_thread(self._catalog.choose, wish.runtime)
        return pack_source(code, choice.runtime.entry_file(wish.handler or choice.runtime.default_handler))

    async def _deploy(self, record: FunctionRecord, wish: Wish, package: bytes | None) -> FunctionRecord:
        """Build, record, publish; all of it or nothing."""
        is_new = package is not None and await asyncio.to_thread(self._catalog.keep_package, record, package)
        try:
            pin = await self._cache.make(self._catalog.draft_of(record, wish))
            try:
                record = _settled(record, wish, pin)
                await self._records.put_function(record)
                self._cache.publish(pin)
                return record
            finally:
                self._cache.drop(pin)
                pin.release()
        except BaseException:
            if is_new:
                self._catalog.remove_package(record)
            raise


def _settled(record: FunctionRecord, wish: Wish, pin: Pin) -> FunctionRecord:
    """The record with what is now in force."""
    function = pin.version.function
    config = FunctionConfig(
        timeout_s=function.limits.timeout_s,
        cpu_time_s=function.limits.cpu_s,
        memory_mb=function.limits.memory_mb,
        max_concurrency=function.max_concurrency,
        environment=function.environment,
        reuse=function.reuse,
        concurrency=function.concurrency,
        network=function.network,
        egress=function.egress,
        sandbox=function.sandbox,
        zygote=function.zygote,
        interpreter=function.interpreter,
    )
    # As it was asked for: `python3.8` must not become whatever Python is newest after a restart.
    runtime = wish.runtime or read_config_if_any(pin.version.folder).runtime or function.runtime
    return msgspec.structs.replace(record, runtime=runtime, handler=function.handler, config=config)


def _beside(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: fields[key] for key in BESIDE if key in fields}


def _digest(package: bytes) -> str:
    return hashlib.sha256(package).hexdigest()
