"""The records of a node. Adding one is a list append; a thread of its own talks to the disk.

What was added is written in batches, 50 ms later at most. A disk that is too slow or full never
holds up a call: what does not fit into the buffer is dropped, counted, and said once in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from stoker.errors import Broken, NodeError
from stoker.records.model import FunctionRecord, InvocationRecord

if TYPE_CHECKING:
    from stoker.records.ledger import Ledger

WRITE_EVERY_S = 0.05
BATCH_ROWS = 500
BATCH_BYTES = 4 * 1024 * 1024
MAX_HELD = 20_000  # records: about 20 MB without logs, and more than a second of the fastest calls
MAX_HELD_BYTES = 64 * 1024 * 1024  # of logs and results in them
KEEP_BYTES = 1024 * 1024 * 1024

T = TypeVar("T")
log = logging.getLogger(__name__)


class Loss(NamedTuple):
    """What a write could not do."""

    records: int
    why: str


class Records:
    """Invocations and functions on disk. Belongs to the event loop that opens it."""

    def __init__(self, path: Path, keep: int = 100_000, keep_bytes: int = KEEP_BYTES) -> None:
        """`keep`: how many of the newest invocations stay; `keep_bytes`: how large the file may grow."""
        self._path = path
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._writer = ThreadPoolExecutor(1, "records")
        self._ledger: Ledger | None = None
        self._waiting: list[InvocationRecord] = []
        self._writing = 0
        self._held = 0
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_losing = False
        self.dropped = 0
        """Records that never reached the disk."""

    def __repr__(self) -> str:
        state = "open" if self._ledger else "closed"
        return f"<Records {state}, {self._held} not yet on disk, {self.dropped} dropped>"

    async def open(self) -> None:
        """Open or make the database. Raises `Unsupported` if a newer Stoker made it, `Broken` if bad."""
        self._loop = asyncio.get_running_loop()
        try:
            self._ledger = await self._run(partial(_open, self._path, self._keep, self._keep_bytes))
        except NodeError:
            self._writer.shutdown()
            raise

    async def close(self) -> None:
        """Write what is waiting and close the file. Idempotent."""
        ledger = self._ledger
        if ledger is not None:
            self._flush(ledger)
            self._ledger = None
            await self._run(ledger.close)
        self._writer.shutdown()

    def add(self, record: InvocationRecord) -> None:
        """Keep this invocation. Never waits, never raises; read back at once, on disk in a moment."""
        if not self._keep:
            return
        size = len(record.stdout) + len(record.stderr) + len(record.result)
        if self._held >= MAX_HELD or self._held_bytes + size > MAX_HELD_BYTES or self._ledger is None:
            self._lose(1, f"{self._held} records wait for the disk")
            return
        self._held += 1
        self._held_bytes += size
        self._waiting.append(record)
        if self._timer is None:
            self._timer = self._loop.call_later(WRITE_EVERY_S, self._tick)

    # The way to the disk

    def _tick(self) -> None:
        self._timer = None
        if self._ledger is not None and not self._writing:
            self._flush(self._ledger)

    def _flush(self, ledger: Ledger) -> None:
        """Hand what is waiting to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        if batch:
            self._writing += 1
            written = self._loop.run_in_executor(self._writer, _write, ledger, batch)
            written.add_done_callback(partial(self._written, batch))

    def _written(self, batch: list[InvocationRecord], written: asyncio.Future[Loss]) -> None:
        self._writing -= 1
        self._held -= len(batch)
        if self._held_bytes:
            self._held_bytes -= sum(len(one.stdout) + len(one.stderr) + len(one.result) for one in batch)
        loss = written.result()
        if loss.why:
            self._lose(loss.records, loss.why)
        elif self._is_losing:
            self._is_losing = False
            log.warning("invocation records are written again; %d were dropped so far", self.dropped)
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(WRITE_EVERY_S, self._tick)

    def _lose(self, records: int, why: str) -> None:
        self.dropped += records
        if not self._is_losing:
            self._is_losing = True
            log.error("invocation records are dropped: %s", why)

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._writer, work)

    def _opened(self) -> Ledger:
        """The ledger, with all that was added before on its way into it."""
        if self._ledger is None:
            raise Broken(f"{self._path} is not open")
        self._flush(self._ledger)
        return self._ledger

    # Reading; each of these raises `NodeError` when the disk fails

    async def invocation(self, invocation: str) -> InvocationRecord | None:
        """The record of that id, if it is known (still, or yet)."""
        return await self._run(partial(self._opened().invocation, invocation))

    async def invocations(
        self,
        function: str | None = None,
        limit: int = 100,
        before: str | None = None,
        after: str | None = None,
    ) -> list[InvocationRecord]:
        """Of one function (by its key) or all, those that ended last first.

        `before`: only those that ended before the one of this id. `after`: those that ended after it,
        the oldest first, for whoever follows; an id that is not known any more was before all.
        """
        return await self._run(partial(self._opened().invocations, function, limit, before, after))

    # Functions

    async def put_function(self, record: FunctionRecord) -> None:
        """On disk when it returns, in place of the one with the same id.

        Raises `AlreadyExists` when another function has the name.
        """
        await self._run(partial(self._opened().put_function, record))

    async def function(self, name_or_id: str) -> FunctionRecord | None:
        """The function of that name or id."""
        return await self._run(partial(self._opened().function, name_or_id))

    async def functions(
        self, limit: int = 100, offset: int = 0, name: str | None = None
    ) -> list[FunctionRecord]:
        """By name; `name`: that one only."""
        return await self._run(partial(self._opened().functions, limit, offset, name))

    async def delete_function(self, function: str) -> bool:
        """Forget the function of that id, for good when it returns; False if there was none."""
        return await self._run(partial(self._opened().delete_function, function))


def _open(path: Path, keep: int, keep_bytes: int) -> Ledger:
    """Runs in the thread, and SQLAlchemy's 100 ms of importing with it: backends start meanwhile."""
    from stoker.records.ledger import Ledger

    return Ledger(path, keep, keep_bytes)


def _write(ledger: Ledger, records: Sequence[InvocationRecord]) -> Loss:
    """Runs in the thread."""
    lost, why = 0, ""
    for batch in _batches(records):
        try:
            ledger.write(batch)
        except NodeError as error:
            lost, why = lost + len(batch), error.message
    try:
        ledger.trim_if_due()
    except NodeError as error:
        why = why or error.message
    return Loss(lost, why)


def _batches(records: Sequence[InvocationRecord]) -> Iterator[Sequence[InvocationRecord]]:
    """Slices that are each good for one statement."""
    for start in range(0, len(records), BATCH_ROWS):
        rows = records[start : start + BATCH_ROWS]
        said = [len(one.stdout) + len(one.stderr) + len(one.result) + len(one.error_stack) for one in rows]
        if sum(said) <= BATCH_BYTES:
            yield rows
        else:
            yield from _by_size(rows)


def _by_size(records: Sequence[InvocationRecord]) -> Iterator[Sequence[InvocationRecord]]:
    start = size = 0
    for at, record in enumerate(records):
        if at > start and size + record.size > BATCH_BYTES:
            yield records[start:at]
            start, size = at, 0
        size += record.size
    yield records[start:]
