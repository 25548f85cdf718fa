"""Invocations on disk, a page for each batch that was written.

Theory. What is asked of these records is rare beside what is written: at full speed tens of thousands a
second, each once. Keeping and counting a call took 17 µs of the node's processor time with a row for each,
its indexes and its removal, and takes about 10 this way: a batch becomes one row, its records in one
MessagePack text, in the order in which they ended, beside the least and the greatest id in it and the
functions it speaks of. Ids begin with the time, so an id is in one of the few pages whose bounds enclose
it. Where calls are rare a page has one record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from stoker.records.model import InvocationRecord
from stoker.records.tables import PAGES

INSERT = sa.insert(PAGES)
SEPARATOR = "\n"  # no function's key has one


class Place(NamedTuple):
    """Where a record is; places are ordered as the invocations ended."""

    page: int
    at: int


START = Place(0, 0)


class Pages:
    """The invocations of one database. Its methods raise what the library raises."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[InvocationRecord]).decode

    def __repr__(self) -> str:
        return f"<Pages of {self._connection!r}>"

    def write(self, batch: Sequence[InvocationRecord]) -> int:
        """Add all of them, or none and raise; returns how many bytes that took."""
        page = self._page(batch)
        ids = [record.id for record in batch]
        functions = SEPARATOR.join(("", *{record.function for record in batch}, ""))
        row = {"first": min(ids), "last": max(ids), "functions": functions, "records": len(ids), "page": page}
        self._connection.execute(INSERT, row)
        return len(page)

    def _page(self, batch: Sequence[InvocationRecord]) -> bytes:
        try:
            return self._encode(batch)
        except UnicodeEncodeError:  # a lone surrogate in what a function said of its error
            return self._encode([_printable(record) for record in batch])

    def find(self, invocation: str) -> tuple[Place, InvocationRecord] | None:
        """The record of that id, the first where there are several."""
        encloses = (PAGES.c.last >= invocation) & (PAGES.c.first <= invocation)
        wanted = sa.select(PAGES.c.seq, PAGES.c.page).where(encloses).order_by(PAGES.c.seq)
        for seq, page in self._connection.execute(wanted):
            for index, record in enumerate(self._decode(page)):
                if record.id == invocation:
                    return Place(seq, index), record
        return None

    def before(self, place: Place | None, function: str | None) -> Iterator[InvocationRecord]:
        """What ended before `place` (None: all), those that ended last first."""
        wanted = _about(function).order_by(PAGES.c.seq.desc())
        if place is not None:
            wanted = wanted.where(PAGES.c.seq <= place.page)
        for seq, page in self._connection.execute(wanted):
            records = self._decode(page)
            if place is not None and seq == place.page:
                records = records[: place.at]
            yield from _of(function, reversed(records))

    def after(self, place: Place, function: str | None) -> Iterator[InvocationRecord]:
        """What ended after `place`, the oldest first."""
        wanted = _about(function).where(PAGES.c.seq >= place.page).order_by(PAGES.c.seq)
        for seq, page in self._connection.execute(wanted):
            records = self._decode(page)
            if seq == place.page:
                records = records[place.at + 1 :]
            yield from _of(function, iter(records))

    def keep_newest(self, records: int) -> None:
        """Forget all but so many."""
        total = self._connection.execute(sa.select(sa.func.sum(PAGES.c.records))).scalar_one() or 0
        wanted = sa.select(PAGES.c.seq, PAGES.c.records).order_by(PAGES.c.seq)
        gone = 0
        for seq, count in self._connection.execute(wanted):
            if total - count < records:
                break
            gone, total = seq, total - count
        self._connection.execute(sa.delete(PAGES).where(PAGES.c.seq <= gone))
        if total > records:
            self._shorten_oldest(total - records)

    def _shorten_oldest(self, count: int) -> None:
        oldest = sa.select(PAGES.c.seq, PAGES.c.page).order_by(PAGES.c.seq).limit(1)
        seq, page = self._connection.execute(oldest).one()
        records = self._decode(page)[count:]
        shorter = {"records": len(records), "page": self._page(records)}
        self._connection.execute(sa.update(PAGES).where(PAGES.c.seq == seq).values(shorter))

    def forget_a_tenth(self) -> bool:
        """Of the pages, the oldest; whether there was anything to forget."""
        seq = PAGES.c.seq
        low, high = self._connection.execute(sa.select(sa.func.min(seq), sa.func.max(seq))).one()
        if low is None:
            return False
        self._connection.execute(sa.delete(PAGES).where(seq <= low + (high - low) // 10))
        return True


def _about(function: str | None) -> sa.Select[int, bytes]:
    wanted = sa.select(PAGES.c.seq, PAGES.c.page)
    if function is None:
        return wanted
    return wanted.where(sa.func.instr(PAGES.c.functions, f"{SEPARATOR}{function}{SEPARATOR}") > 0)


def _of(function: str | None, records: Iterator[InvocationRecord]) -> Iterator[InvocationRecord]:
    return (record for record in records if function is None or record.function == function)


def _printable(record: InvocationRecord) -> InvocationRecord:
    clean = {
        name: value.encode("utf-8", "replace").decode()
        for name, value in msgspec.structs.asdict(record).items()
        if isinstance(value, str)
    }
    return msgspec.structs.replace(record, **clean)
