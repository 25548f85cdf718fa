"""Every statement that is ever sent to the database. Lives in one thread, that of `Records`.

A record is kept whole, as JSON, beside the few columns that are asked for. So a batch of records is
one JSON text, made by one call of the encoder, and goes in by one statement: the interpreter's lock
is given up once for a batch. A statement for each row gives it up, and has to win it back from a
busy event loop, for each row: with `executemany` that took 830 µs a row, this way it takes 16, of
which the event loop misses 0.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from stoker.errors import AlreadyExists
from stoker.records.model import FunctionRecord, InvocationRecord
from stoker.records.tables import FUNCTIONS, INVOCATIONS, connect, pragma, translated

TRIM_EVERY = 1000  # rows; a trim then takes about 5 ms

# json_extract and not the ->> operator: SQLite has that since 3.38, some distributions are older.
ADD_BATCH = """
INSERT OR IGNORE INTO invocations (id, function, status, record)
SELECT json_extract(value, '$.id'), json_extract(value, '$.function'), json_extract(value, '$.status'), value
FROM json_each(?)"""


class Ledger:
    """An open database. Its methods raise `NodeError`."""

    def __init__(self, path: Path, keep: int, keep_bytes: int) -> None:
        self._path = path
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._untrimmed = self._untrimmed_bytes = 0
        self._connection = connect(path)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(InvocationRecord).decode
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
        """Add all of them, or none and raise; one that is there already stays as it is."""
        text = self._json(batch)
        with translated(self._path):
            self._connection.exec_driver_sql(ADD_BATCH, (text,))
        self._untrimmed += len(batch)
        self._untrimmed_bytes += len(text)

    def _json(self, batch: Sequence[InvocationRecord]) -> str:
        try:
            return self._encode(batch).decode()
        except UnicodeEncodeError:  # a lone surrogate in what a function said of its error
            return self._encode([_printable(record) for record in batch]).decode()

    def trim_if_due(self) -> None:
        """Trim now and then."""
        if self._untrimmed >= TRIM_EVERY or self._untrimmed_bytes > self._keep_bytes // 16:
            self.trim()

    def trim(self) -> None:
        """Forget the oldest beyond what is to be kept."""
        self._untrimmed = self._untrimmed_bytes = 0
        newest = sa.select(sa.func.max(INVOCATIONS.c.seq)).scalar_subquery()
        with translated(self._path):
            self._connection.execute(sa.delete(INVOCATIONS).where(INVOCATIONS.c.seq <= newest - self._keep))
            while self._used_bytes() > self._keep_bytes and self._forget_a_tenth():
                pass

    def _used_bytes(self) -> int:
        pages = pragma(self._connection, "page_count") - pragma(self._connection, "freelist_count")
        return pages * pragma(self._connection, "page_size")

    def _forget_a_tenth(self) -> bool:
        """Whether there was anything to forget."""
        seq = INVOCATIONS.c.seq
        low, high = self._connection.execute(sa.select(sa.func.min(seq), sa.func.max(seq))).one()
        if low is None:
            return False
        self._connection.execute(sa.delete(INVOCATIONS).where(seq <= low + (high - low) // 10))
        return True

    def invocation(self, invocation: str) -> InvocationRecord | None:
        wanted = sa.select(INVOCATIONS.c.record).where(INVOCATIONS.c.id == invocation)
        with translated(self._path):
            found = self._connection.execute(wanted).scalar_one_or_none()
        return None if found is None else self._decode(found)

    def invocations(
        self, function: str | None, limit: int, before: str | None, after: str | None
    ) -> list[InvocationRecord]:
        seq = INVOCATIONS.c.seq
        wanted = sa.select(INVOCATIONS.c.record).limit(limit)
        wanted = wanted.order_by(seq.desc() if after is None else seq)
        if function is not None:
            wanted = wanted.where(INVOCATIONS.c.function == function)
        if before is not None:
            wanted = wanted.where(seq < _seq_of(before))
        if after is not None:
            wanted = wanted.where(seq > sa.func.coalesce(_seq_of(after), 0))
        with translated(self._path):
            return [self._decode(record) for record in self._connection.execute(wanted).scalars()]

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


def _seq_of(invocation: str) -> sa.ScalarSelect[int]:
    return sa.select(INVOCATIONS.c.seq).where(INVOCATIONS.c.id == invocation).scalar_subquery()


def _printable(record: InvocationRecord) -> InvocationRecord:
    clean = {
        name: value.encode("utf-8", "replace").decode()
        for name, value in msgspec.structs.asdict(record).items()
        if isinstance(value, str)
    }
    return msgspec.structs.replace(record, **clean)
