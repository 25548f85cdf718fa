"""One live sandbox with its session and its outputs, and the calls that are inside it.

Theory of the outputs. What a function writes to descriptors 1 and 2 comes through two pipes, apart
from the frames. Where one call is inside at a time, the bytes read up to its answer are its own: the
runtime has written them before the answer, so one last look at the pipes when the answer arrives
finds them all. Where calls are concurrent the runtime sends `LOG` frames instead.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from stoker.pool.groups import STUCK_S
from stoker.pool.meter import Meter
from stoker.pool.readers import Readers
from stoker.runtimes.greeting import Load
from stoker.runtimes.wire import PERMIT, CallListener, Loading, Session, SessionListener, write_load
from stoker.sandboxes.contract import Sandbox
from stoker.types import Ending, FunctionError

READ_BYTES: Final = 64 * 1024
MAX_DRAIN_READS: Final = 32  # a pipe holds at most 1 MiB unless its owner is privileged
SMALL_READ_BYTES = 4096
SMALL_READS, REST_S = 16, 0.002  # so many take a fifth of that rest
GRACE_S = 2.0
"""Between the end of the stream and the end of the sandbox, whichever is first; a program that only
closed its channel is ended after it."""


class Guest(CallListener):
    """A call inside a live sandbox: besides its own frames it hears when the sandbox ends."""

    __slots__ = ()

    @abstractmethod
    def loaded(self) -> None: ...
    @abstractmethod
    def load_failed(self, error: FunctionError) -> None: ...
    @abstractmethod
    def sandbox_ended(self, ending: Ending, reason: str) -> None: ...
    @abstractmethod
    def taken_back(self) -> None:
        """It had not begun, and will not begin here."""


class Live(SessionListener):
    """A sandbox that was made; hears its session and tells the calls inside."""

    def __init__(
        self,
        name: str,
        sandbox: Sandbox,
        load: Load,
        *,
        is_exact: bool = False,
        on_up: Callable[[], None] = lambda: None,
        zygote: int | None = None,
        on_end: Callable[[], None],
        on_queues: Callable[[], None] = lambda: None,
        on_load: Callable[[Loading], None] = lambda loading: None,
    ) -> None:
        """`zygote` is a file that it can become instead of loading the function (`freezing`)."""
        self.name = name
        self.moved_at = 0.0
        """When a call last came to its answer or found nobody inside."""
        self._seen_at = -1.0
        """When it had last moved as it was last looked at."""
        self.sandbox = sandbox
        self.guests: dict[int, Guest] = {}
        self.greeted_at = 0.0
        self.loaded_at = 0.0
        self.load_ns = 0
        self.meter = Meter(sandbox, is_exact)
        self._loop = asyncio.get_running_loop()
        self.session = Session(self, load.result_bytes, self._loop.call_soon)
        self._load = load
        self._zygote = zygote
        self._sent = 0
        self.is_shared = load.mode != "process" or load.concurrency > 1
        """Calls inside run at the same time, not one after another."""
        self._on_up = on_up
        self._on_end = on_end
        self._on_queues = on_queues
        self._on_load = on_load
        self._readers: Readers | None = None
        self._poll = select.poll()
        self._fds = (sandbox.stdout, sandbox.stderr)
        self._unread: list[int] = []
        """Streams that nobody reads for now: there was enough of them, or nothing can be in them yet."""
        self._early: list[tuple[int, bytes]] = []
        self._is_over = False
        self._load_error: FunctionError | None = None
        self._broken = ""
        self._taken_back = 0
        self._drained_at = -1
        self._queued = 0
        self._is_silent = False
        self._small_reads = 0
        self._ending: Ending | None = None
        self._grace: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Live {self.sandbox.id} {'over' if self._is_over else 'up'} {len(self.guests)} inside>"

    async def connect(self, readers: Readers) -> None:
        """Start the conversation and tell the runtime what to load. Calls may enter from `on_up` on.

        `readers` read the pipes.
        """
        self._readers = readers
        # Urgent bytes lie in the stream as all others do; else they would wake us and could not be read.
        self.sandbox.channel.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if self._zygote is not None:  # sent before the transport is there, which can send bytes alone
            self._sent = socket.send_fds(self.sandbox.channel, [write_load(self._load)], [self._zygote])
        await self._loop.create_unix_connection(lambda: self.session, sock=self.sandbox.channel)
        if self.session.is_lost:
            # Over before uvloop took the socket along: the descriptor is closed, its number may be another's.
            self.sandbox.channel.detach()

    def connected(self) -> None:
        for fd in self._fds:
            self._poll.register(fd, select.POLLIN)
        self._unread += self._fds
        self._loop.call_soon(self._read_on)  # a first call that is waiting has gone in by then
        self.sandbox.ended.add_done_callback(self._sandbox_ended)
        if not self.sandbox.is_opened:
            self.session.load(self._load, self._sent)
        self._on_up()

    def enter(self, guest: Guest, invocation: bytes, budget_ms: int, event: bytes, runs_at_once: bool) -> int:
        """Send a call in, to run at once or after those inside; returns its number here."""
        if self.guests and not runs_at_once and self.sandbox.permits is not None:
            if not self._queued:
                # Those of one turn of the event loop go in together: the sandbox is woken once.
                self._loop.call_soon(self._send_queued)
            self._queued += 1
            number = self.session.queue(guest, invocation, budget_ms, event)
        else:
            if self.guests:
                self.meter.join()
            else:
                self.moved_at = time.monotonic()
                if self.loaded_at:
                    self.meter.begin(self.moved_at)
            self._send_queued()
            number = self.session.call(guest, invocation, budget_ms, event)
        self.guests[number] = guest
        if self._early:
            self._hand_over(guest)
        return number

    def _hand_over(self, guest: Guest) -> None:
        """What was written while nobody was inside belongs to the next call."""
        early, self._early = self._early, []
        for stream, data in early:
            guest.wrote(stream, data)
        self._read_on()

    def _send_queued(self) -> None:
        number, self._queued = self._queued, 0
        if number and not self._is_over:
            assert self.sandbox.permits is not None
            try:
                os.write(self.sandbox.permits, PERMIT * number)
            except BlockingIOError:
                self._end(Ending(destroyed=True), "it takes none of its permits")
            else:
                self.session.send_queued()

    def stands_still(self, now: float) -> bool:
        """Whether no call has come to its answer for too long, though the node has read since the last look.

        Without the second look a node that was itself kept away would take unread answers for none.
        """
        seen_at, self._seen_at = self._seen_at, self.moved_at
        return seen_at == self.moved_at and now - seen_at >= STUCK_S

    def take_back(self) -> list[Guest]:
        """Take back the queued calls that have not begun, because the one in front runs long.

        None, where all have begun: their answers are on the way.
        """
        self._send_queued()
        assert self.sandbox.permits is not None
        try:
            permits = len(os.read(self.sandbox.permits, READ_BYTES)) // len(PERMIT)
        except BlockingIOError:
            return []
        taken = []
        for number in list(self.guests)[max(0, len(self.guests) - permits) :]:
            taken.append(self.guests.pop(number))
            self.session.forget(number)
            self._taken_back = number
        return taken

    def runs_alone(self, number: int) -> bool:
        """Whether this call runs, and nobody beside it; those behind it may queue."""
        return self.loaded_at > 0 and next(iter(self.guests), 0) == number

    def leave(self, number: int, has_answered: bool = False) -> None:
        """The call has ended, one way or another; where it has not answered, the runtime is told."""
        self.guests.pop(number, None)
        if 0 < self._taken_back < number:
            # Sent after those that were taken back and answered: the server has passed them by.
            self._taken_back = 0
            self._on_queues()
        if not has_answered:
            self.session.cancel(number)
        if self.guests:
            self.moved_at = time.monotonic()
            if not self.is_shared:
                self.meter.begin(self.moved_at)

    def drain(self) -> None:
        """Read what the pipes held when the session last read; once is enough for all that it read then.

        HOLDS: of calls whose answers came together only the first may have written, see decision 0001.
        """
        if self.session.reads != self._drained_at:
            self._drained_at = self.session.reads
            self._drain()

    def _drain(self) -> None:
        """Read what the pipes hold now; bounded, as whoever still writes could keep us here."""
        for _ in range(MAX_DRAIN_READS if not self._is_over else 0):
            ready = self._poll.poll(0)
            if not ready:
                return
            for fd, _ in ready:
                self._read(fd)

    def close(self) -> None:
        """Let go of the stream and the pipes; the sandbox itself is the pool's to destroy."""
        if self._grace is not None:
            self._grace.cancel()
        if not self._is_over:
            self._is_over = True
            self._stop_reading()
        self.session.close()

    # The pipes

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._stop_reading(fd)
            self._poll.unregister(fd)
            if fd in self._unread:
                self._unread.remove(fd)
            return
        stream = 1 if fd == self._fds[0] else 2
        guest = next(iter(self.guests.values()), None)
        if guest is not None:
            if len(data) < SMALL_READ_BYTES:
                self._rest_after_many(fd)
            guest.wrote(stream, data)
        else:
            # Written while nobody is inside, for example at import: the next call gets it.
            self._early.append((stream, data))
            if sum(len(part) for _, part in self._early) >= READ_BYTES:
                self._leave_unread(fd)

    def _rest_after_many(self, fd: int) -> None:
        """Who writes byte by byte is read from in larger pieces: the node is not woken for each."""
        self._small_reads += 1
        if self._small_reads >= SMALL_READS:
            self._small_reads = 0
            self._leave_unread(fd)
            self._loop.call_later(REST_S, self._read_on)

    def _read_on(self) -> None:
        while self._readers is not None and self._unread and not self._is_over:
            fd = self._unread.pop()
            self._readers.add(fd, self._read)

    def _leave_unread(self, fd: int) -> None:
        """Who writes on without a call waits for the next one, instead of having the node read for ever."""
        if fd not in self._unread:
            self._stop_reading(fd)
            self._unread.append(fd)

    def _stop_reading(self, *fds: int) -> None:
        """These, or all."""
        for fd in fds or self._fds:
            if self._readers is not None:
                self._readers.remove(fd)

    # The session

    def greeted(self, can_queue: bool) -> None:
        self.greeted_at = time.monotonic()
        if can_queue and self.sandbox.permits is not None:
            self._on_queues()

    def loaded(self, load_ns: int) -> None:
        self.loaded_at = time.monotonic()
        self.load_ns = load_ns
        self._on_load(self.session.loading)
        if self.guests:
            self.meter.begin_first()
        for guest in self.guests.values():
            guest.loaded()

    def load_failed(self, error: FunctionError) -> None:
        self._load_error = error
        self._drain()
        for guest in list(self.guests.values()):
            guest.load_failed(error)

    def session_ended(self, reason: str) -> None:
        self._is_silent = True
        self._broken = reason
        self._conclude("it closed its channel but did not end")

    def _sandbox_ended(self, ended: asyncio.Future[Ending]) -> None:
        self._ending = ended.result()
        self._conclude("")

    def _conclude(self, otherwise: str) -> None:
        """The end of the stream and the end of the sandbox come in either order and belong together.

        What was said before the end may still be unread when the sandbox is gone, and how it ended is
        not yet known when the stream is over: whichever is first waits a moment for the other.
        """
        if self._broken or (self._is_silent and not self.guests):
            self._end(self._ending or Ending(destroyed=True), self._broken)
        elif self._is_silent and self._ending is not None:
            self._end(self._ending, "")
        elif self._grace is None and not self._is_over:
            self._grace = self._loop.call_later(GRACE_S, self._give_up, otherwise)

    def _give_up(self, reason: str) -> None:
        self._end(self._ending or Ending(destroyed=True), reason)

    def _end(self, ending: Ending, reason: str) -> None:
        if self._is_over:
            return
        self._drain()
        self._is_over = True
        if self._grace is not None:
            self._grace.cancel()
        self._stop_reading()
        for guest in list(self.guests.values()):
            if self._load_error is not None:
                guest.load_failed(self._load_error)
            else:
                guest.sandbox_ended(ending, reason)
        self._on_end()
