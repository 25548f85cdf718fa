"""The open database. Lives in one thread, that of `Records`.

A batch of records is one statement: the interpreter's lock is given up once for a batch. A statement for
each record gives it up, and has to win it back from a busy event loop, for each: with `executemany`
that took 830 µs a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from stoker.errors import AlreadyExists
from stoker.records.model import FunctionRecord, InvocationRecord
from stoker.records.pages import START, Pages
from stoker.records.tables import FUNCTIONS, connect, pragma, translated

TRIM_EVERY = 5000  # rows; a trim takes about 5 ms


class Ledger:
    """An open database. Its methods raise `NodeError`."""

    def __init__(self, path: Path, keep: int, keep_bytes: int) -> None:
        self._path = path
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._untrimmed = self._untrimmed_bytes = 0
        self._connection = connect(path)
        self._pages = Pages(self._connection)
        self._encode = msgspec.json.Encoder().encode
        self._decode_function = msgspec.json.Decoder(FunctionRecord).decode

    def __repr__(self) -> str:
        return f"<Ledger {self._path} {'closed' if self._connection.closed else 'open'}>"

    def close(self) -> None:
        """Trim once more and close the file. Idempotent."""
        if self._connection.closed:
            return
        try:
            self.trim()
        finally:
            self._connection.close()
            self._connection.engine.dispose()

    # Invocations

    def write(self, batch: Sequence[InvocationRecord]) -> None:
        """Add all of them, or none and raise."""
        with translated(self._path):
            self._untrimmed_bytes += self._pages.write(batch)
        self._untrimmed += len(batch)

    def trim_if_due(self) -> None:
        """Trim now and then."""
        if self._untrimmed >= TRIM_EVERY or self._untrimmed_bytes > self._keep_bytes // 16:
            self.trim()

    def trim(self) -> None:
        """Forget the oldest beyond what is to be kept."""
        self._untrimmed = self._untrimmed_bytes = 0
        with translated(self._path):
            self._pages.keep_newest(self._keep)
            while self._used_bytes() > self._keep_bytes and self._pages.forget_a_tenth():
                pass

    def _used_bytes(self) -> int:
        pages = pragma(self._connection, "page_count") - pragma(self._connection, "freelist_count")
        return pages * pragma(self._connection, "page_size")

    def invocation(self, invocation: str) -> InvocationRecord | None:
        with translated(self._path):
            found = self._pages.find(invocation)
        return found[1] if found else None

    def invocations(
        self, function: str | None, limit: int, before: str | None, after: str | None
    ) -> list[InvocationRecord]:
        with translated(self._path):
            return list(islice(self._invocations(function, before, after), limit))

    def _invocations(
        self, function: str | None, before: str | None, after: str | None
    ) -> Iterator[InvocationRecord]:
        if after is not None:
            found = self._pages.find(after)
            return self._pages.after(found[0] if found else START, function)
        if before is None:
            return self._pages.before(None, function)
        found = self._pages.find(before)
        return self._pages.before(found[0], function) if found else iter(())

    # Functions

    def put_function(self, record: FunctionRecord) -> None:
        row = {"id": record.id, "name": record.name, "record": self._encode(record).decode()}
        put = insert(FUNCTIONS).values(row)
        put = put.on_conflict_do_update(index_elements=["id"], set_=row)
        try:
            self._execute_durably(put)
        except sa.exc.IntegrityError:
            raise AlreadyExists(f"there is a function {record.name!r} already") from None

    def delete_function(self, function: str) -> bool:
        return self._execute_durably(sa.delete(FUNCTIONS).where(FUNCTIONS.c.id == function)) > 0

    def _execute_durably(self, statement: sa.Executable) -> int:
        """On the disk when it returns, not only safe from a crash of ours."""
        with translated(self._path):
            self._connection.exec_driver_sql("PRAGMA synchronous = FULL")
            try:
                return self._connection.execute(statement).rowcount
            finally:
                self._connection.exec_driver_sql("PRAGMA synchronous = NORMAL")

    def function(self, name_or_id: str) -> FunctionRecord | None:
        is_it = (FUNCTIONS.c.id == name_or_id) | (FUNCTIONS.c.name == name_or_id)
        with translated(self._path):
            found = self._connection.execute(sa.select(FUNCTIONS.c.record).where(is_it)).scalars().first()
        return None if found is None else self._decode_function(found)

    def functions(self, limit: int, offset: int, name: str | None) -> list[FunctionRecord]:
        wanted = sa.select(FUNCTIONS.c.record).order_by(FUNCTIONS.c.name).limit(limit).offset(offset)
        if name is not None:
            wanted = wanted.where(FUNCTIONS.c.name == name)
        with translated(self._path):
            return [self._decode_function(record) for record in self._connection.execute(wanted).scalars()]
