"""The catalog `functions`: functions that were deployed, each a record and a package kept by digest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from stoker.code.describing import Choose, Wish, check, describe, read_config_if_any
from stoker.code.drafts import Draft, root_anywhere
from stoker.code.sources import Package
from stoker.code.sources.folder import copy_file
from stoker.code.storage import storing
from stoker.code.terms import Terms
from stoker.errors import BadCode, CodeUnavailable, NoSuchFunction, StorageFull
from stoker.records.model import FunctionRecord
from stoker.types import Function, Network

CATALOG = "functions"
PAGE = 1000
DEFAULTS = Wish(max_concurrency=10)
"""Of the Functions API, where they are not the node's own."""


class Records(Protocol):
    """What is asked of the room `records` here."""

    async def put_function(self, record: FunctionRecord) -> None: ...
    async def function(self, name_or_id: str) -> FunctionRecord | None: ...
    async def functions(
        self, limit: int = 100, offset: int = 0, name: str | None = None
    ) -> list[FunctionRecord]: ...
    async def delete_function(self, function: str) -> bool: ...


def key_of(name: str) -> str:
    return f"{CATALOG}/{name}"


def blob_name(record: FunctionRecord) -> str:
    """The file that holds a function's package as it was deployed; no two functions share one."""
    return f"{record.id}.{record.digest}"


def wish_of(record: FunctionRecord) -> Wish:
    """What a record asks for: everything, nothing is left to the package."""
    config = record.config
    return Wish(
        runtime=record.runtime,
        handler=record.handler,
        reuse=config.reuse,
        memory_mb=config.memory_mb,
        timeout_s=config.timeout_s,
        cpu_time_s=config.cpu_time_s,
        concurrency=config.concurrency,
        max_concurrency=config.max_concurrency,
        network=config.network,
        egress=config.egress,
        sandbox=config.sandbox,
        zygote=config.zygote,
        interpreter=config.interpreter,
        environment=config.environment,
    )


class DeployedCatalog:
    """The records' functions, as drafts."""

    def __init__(self, records: Records, blobs: Path, terms: Terms, choose: Choose) -> None:
        self._records = records
        self._blobs = blobs
        self._terms = terms
        self.choose = choose

    def __repr__(self) -> str:
        return f"<DeployedCatalog over {self._records!r}>"

    async def draft(self, name: str) -> Draft:
        """By name or id; the draft's key has the name."""
        record = await self._records.function(name)
        if record is None:
            raise NoSuchFunction(f"there is no function {name!r}")
        return self.draft_of(record)

    def draft_of(self, record: FunctionRecord, wish: Wish | None = None) -> Draft:
        """What one record describes, or is going to; what it leaves open, config.json may say."""
        key, asked = key_of(record.name), wish or wish_of(record)

        def read(root: Path) -> Function:
            said = read_config_if_any(root)
            check(said, self._terms, BadCode, "config.json: ")
            return describe(key, asked.over(said).over(DEFAULTS), root, self._terms, self.choose)

        return Draft(
            key=key,
            fetch=lambda into: self._fetch(record, into),
            find_root=root_anywhere,
            read=read,
            package=record.digest,
        )

    def keep_package(self, record: FunctionRecord, package: bytes) -> bool:
        """Store what was deployed; False when it is there already. Blocks; raises `StorageFull`."""
        blob = self._blobs / blob_name(record)
        if blob.exists():
            return False
        try:
            with storing(f"keeping the package of {record.name!r}"):
                blob.write_bytes(package)
        except StorageFull:
            blob.unlink(missing_ok=True)
            raise
        return True

    def remove_package(self, record: FunctionRecord) -> None:
        (self._blobs / blob_name(record)).unlink(missing_ok=True)

    async def _fetch(self, record: FunctionRecord, into: Path) -> Package:
        blob = self._blobs / blob_name(record)
        if not blob.is_file():
            raise CodeUnavailable(
                f"the package of {record.name!r} is gone from {self._blobs}; deploy it again"
            )
        return await asyncio.to_thread(copy_file, blob, into, 2 * self._terms.max_package_bytes)

    async def open(self) -> None:
        """Remove the packages that no record speaks of: of deployments that were cut short."""
        self._blobs.mkdir(mode=0o700, exist_ok=True)
        known = {blob_name(record) for record in await self._all()}
        for path in self._blobs.iterdir():
            if path.name not in known:
                path.unlink()

    async def names(self) -> list[str]:
        return [record.name for record in await self._all()]

    async def languages(self) -> set[tuple[str, Network]]:
        """The languages and networks that were asked for by name."""
        return {(record.runtime, record.config.network) for record in await self._all() if record.runtime}

    async def _all(self) -> list[FunctionRecord]:
        records: list[FunctionRecord] = []
        while page := await self._records.functions(limit=PAGE, offset=len(records)):
            records += page
        return records
