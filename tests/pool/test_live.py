"""What a sandbox writes, read from real pipes by the node's side of it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from stoker.linux.permits import make_permits
from stoker.pool.groups import STUCK_S
from stoker.pool.live import SMALL_READS, Live
from stoker.pool.readers import Readers
from stoker.runtimes.greeting import Load
from stoker.runtimes.wire import HEADER, HELLO, LOADED, PERMIT, RESULT
from stoker.sandboxes.contract import Sandbox
from stoker.types import Ending, FunctionError, Hits, Usage

LOAD = Load(
    code="/app/function",
    handler="main.f",
    mode="process",
    concurrency=1,
    function="f",
    memory_mb=1,
    log_bytes=2,
    result_bytes=3,
    environment={},
)


class Pipes(Sandbox):
    """A sandbox of which only the streams are there."""

    def __init__(self) -> None:
        self.id = "pipes"
        self.channel, self.inside = socket.socketpair()
        self.channel.setblocking(False)
        self.stdout, self.writes = os.pipe2(os.O_NONBLOCK)
        self.stderr, self.complains = os.pipe2(os.O_NONBLOCK)
        self.ended = asyncio.get_running_loop().create_future()
        self.permits, self.begun = make_permits()
        self.readers = Readers()

    async def destroy(self) -> None:
        self.readers.close()
        self.inside.close()
        for descriptor in (self.stdout, self.stderr, self.complains, self.permits, self.begun):
            os.close(descriptor)

    def usage(self) -> Usage:
        return Usage()

    def hits(self) -> Hits:
        return Hits()


class Reader:
    """A call that keeps what it is told."""

    def __init__(self) -> None:
        self.read = b""

    def wrote(self, stream: int, data: bytes) -> None:
        self.read += data

    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None: ...
    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None: ...
    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None: ...
    def loaded(self) -> None: ...
    def load_failed(self, error: FunctionError) -> None: ...
    def sandbox_ended(self, ending: Ending, reason: str) -> None: ...
    def taken_back(self) -> None: ...


@pytest.fixture
async def pipes() -> AsyncIterator[Pipes]:
    pipes = Pipes()
    yield pipes
    await pipes.destroy()


@contextmanager
def nothing_wrong() -> Iterator[None]:
    """No callback of the event loop raises."""
    wrong: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    yield
    loop.set_exception_handler(None)
    assert wrong == []


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0)


def test_who_is_gone_before_the_conversation_leaves_no_socket_with_a_number_of_others() -> None:
    """The transport has closed the descriptor then, and has not yet taken the socket along."""

    async def converse() -> None:
        pipes = Pipes()
        pipes.inside.close()
        live = Live("pipes", pipes, LOAD, on_end=lambda: None)
        await live.connect(pipes.readers)
        live.close()
        await until(lambda: live.session.is_lost)
        assert pipes.channel.fileno() == -1
        os.close(pipes.writes)
        await pipes.destroy()

    uvloop.run(converse())


async def test_who_writes_byte_by_byte_and_closes_is_read_to_the_end(pipes: Pipes) -> None:
    """The end may be seen while the stream is left alone for a moment; it is over then, not read again."""
    live, reader = Live("pipes", pipes, LOAD, on_end=lambda: None), Reader()
    with nothing_wrong():
        await live.connect(pipes.readers)
        live.enter(reader, bytes(16), 1000, b"{}", runs_at_once=True)
        for count in range(1, SMALL_READS + 1):
            os.write(pipes.writes, b"x")
            await until(lambda count=count: len(reader.read) == count)  # type: ignore[misc]
        os.write(pipes.writes, b"the rest")
        os.close(pipes.writes)
        live.drain()
        assert reader.read == b"x" * SMALL_READS + b"the rest"
        await until(lambda: not live._unread)
        for _ in range(3):  # an end that is read again would be heard of by now
            await asyncio.sleep(0)
    live.close()


async def queue(pipes: Pipes, calls: int) -> tuple[Live, list[Reader]]:
    """One call that runs, and behind it some that queue and have been sent in."""
    os.close(pipes.writes)
    live = Live("pipes", pipes, LOAD, on_end=lambda: None)
    readers = [Reader() for _ in range(1 + calls)]
    await live.connect(pipes.readers)
    live.enter(readers[0], bytes(16), 1000, b"{}", runs_at_once=True)
    for reader in readers[1:]:
        live.enter(reader, bytes(16), 1000, b"{}", runs_at_once=False)
    await asyncio.sleep(0)
    return live, readers


async def test_only_calls_that_have_not_begun_are_taken_back(pipes: Pipes) -> None:
    live, readers = await queue(pipes, 3)
    assert os.read(pipes.begun, len(PERMIT))
    assert live.take_back() == readers[2:]
    assert list(live.guests.values()) == readers[:2]
    assert live.take_back() == [], "those left have begun: their answers are on the way"
    live.close()


async def test_a_queue_stands_still_only_if_it_does_in_two_looks(pipes: Pipes) -> None:
    live, _ = await queue(pipes, 3)
    assert not live.stands_still(live.moved_at + 10 * STUCK_S), (
        "the node was away, and has read nothing since"
    )
    assert live.stands_still(live.moved_at + 10 * STUCK_S)
    live.leave(next(iter(live.guests)))
    just = STUCK_S + 1e-6  # what is added to a clock's large number loses its last digits
    assert not live.stands_still(live.moved_at + just)
    assert not live.stands_still(live.moved_at + STUCK_S / 2)
    assert live.stands_still(live.moved_at + just)
    live.close()


async def test_what_is_written_before_answers_that_come_together_is_found_by_one_look(pipes: Pipes) -> None:
    class Answered(Reader):
        """Looks at the pipes and leaves when its answer comes, as a call does."""

        number = 0

        def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
            live.drain()
            live.leave(self.number, has_answered=True)

    live = Live("pipes", pipes, LOAD, on_end=lambda: None)
    readers = [Answered() for _ in range(3)]
    await live.connect(pipes.readers)
    hello = b'{"wire": 1, "runtime": "python", "version": "3.11.2", "queues": true}'
    pipes.inside.send(HEADER.pack(len(hello), HELLO, 0) + hello + HEADER.pack(8, LOADED, 0) + bytes(8))
    await until(lambda: live.loaded_at > 0)
    for reader in readers:
        reader.number = live.enter(reader, bytes(16), 1000, b"{}", runs_at_once=not live.guests)
    looks = live.session.reads
    os.write(pipes.writes, b"said before")
    pipes.inside.send(b"".join(HEADER.pack(16, RESULT, reader.number) + bytes(16) for reader in readers[:2]))
    await until(lambda: len(live.guests) == 1)
    assert live.session.reads == looks + 1
    assert [reader.read for reader in readers] == [b"said before", b"", b""]
    os.write(pipes.writes, b"said later")
    pipes.inside.send(HEADER.pack(16, RESULT, readers[2].number) + bytes(16))
    await until(lambda: not live.guests)
    assert readers[2].read == b"said later"
    os.close(pipes.writes)
    live.close()
