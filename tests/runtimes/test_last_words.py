"""A server that could not load the function says why and leaves; a call sent after that must not drown it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec
import pytest
import uvloop

from stoker.runtimes.wire import ERROR, HEADER, HELLO, TIMES, Session
from stoker.types import FunctionError

WHY = FunctionError("NoSuchHandler", "no function 'lambda_handler' in 'main'")
SAID = TIMES.pack(1, 1) + msgspec.json.encode(WHY)
HI = HEADER.pack(10, HELLO, 0) + b'{"wire":1}'
ROOMY = 6 * 1024 * 1024


class Ear:
    """Hears a session, and the call in it."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.over = asyncio.Event()

    def connected(self) -> None: ...
    def greeted(self, can_queue: bool) -> None: ...
    def loaded(self, load_ns: int) -> None: ...
    def wrote(self, stream: int, data: bytes) -> None: ...
    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None: ...
    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None: ...
    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None: ...

    def load_failed(self, error: FunctionError) -> None:
        self.heard.append(error)

    def session_ended(self, reason: str) -> None:
        self.heard.append(reason)
        self.over.set()


async def say_and_leave(said: bytes) -> list[object]:
    """What is heard of a server that says this and leaves before our call is written."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ear = Ear()
    session = Session(ear, ROOMY, asyncio.get_running_loop().call_soon)
    await asyncio.get_running_loop().create_unix_connection(lambda: session, sock=ours)
    theirs.sendall(HI + said)
    theirs.close()
    session.call(ear, bytes(16), 1000, b"{}")
    await ear.over.wait()
    return ear.heard


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_why_a_server_left_is_heard_though_a_call_was_sent_after_it(run: Callable[..., list[object]]) -> None:
    assert run(say_and_leave(HEADER.pack(len(SAID), ERROR, 0) + SAID)) == [WHY, ""]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_lie_among_last_words_is_still_a_lie(run: Callable[..., list[object]]) -> None:
    (reason,) = run(say_and_leave(HEADER.pack(2**31, ERROR, 0)))
    assert str(reason).startswith(f"a frame of {2**31} bytes")
