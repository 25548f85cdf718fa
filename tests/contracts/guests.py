"""One conversation with one sandbox, as a test has it: everything it says is kept."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

import msgspec

from stoker.runtimes.greeting import Load
from stoker.runtimes.wire import HEADER, PERMIT, Session
from stoker.sandboxes.contract import Backend, Launch, Sandbox, SandboxSpec
from stoker.types import MEBIBYTE, Ending, FunctionError, Limits

PUPPET = Path(__file__).parent.parent / "functions" / "puppet"
RESULT_BYTES = 6 * MEBIBYTE
BUDGET_MS = 30_000
KEPT_BYTES = 1 * MEBIBYTE


class Exited(msgspec.Struct, frozen=True):
    """A call's own process ended without an answer."""

    exit_code: int
    signal: int


class Answer(msgspec.Struct, frozen=True):
    """How one call ended: one of the four is there."""

    result: bytes | None = None
    error: FunctionError | None = None
    exited: Exited | None = None
    ending: Ending | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_ns: int = 0

    @property
    def value(self) -> Any:
        assert self.result is not None, self
        return msgspec.json.decode(self.result)


class Call:
    """Hears of one call."""

    def __init__(self) -> None:
        self.written: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.written_bytes = 0
        self.end: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.has_begun = asyncio.Event()
        self.number = 0

    def wrote(self, stream: int, data: bytes) -> None:
        self.has_begun.set()
        self.written_bytes += len(data)
        keep(self.written[stream], data)

    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
        self._finish(Answer(result=result, cpu_ns=cpu_ns))

    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None:
        self._finish(Answer(error=error, cpu_ns=cpu_ns))

    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None:
        self._finish(Answer(exited=Exited(exit_code, signal), cpu_ns=cpu_ns))

    def _finish(self, answer: Answer) -> None:
        stdout, stderr = (bytes(self.written[stream]) for stream in (1, 2))
        self.end.set_result(msgspec.structs.replace(answer, stdout=stdout, stderr=stderr))


class Guest:
    """A sandbox and the session with the server inside it."""

    def __init__(self, sandbox: Sandbox) -> None:
        loop = asyncio.get_running_loop()
        self.sandbox = sandbox
        self.session = Session(self, RESULT_BYTES, asyncio.get_running_loop().call_soon)
        self.stdout, self.stderr = bytearray(), bytearray()
        self.stdout_bytes = 0
        self.greeting: asyncio.Future[bool] = loop.create_future()
        self.loading: asyncio.Future[FunctionError | None] = loop.create_future()
        self.over: asyncio.Future[str] = loop.create_future()

    def __repr__(self) -> str:
        return f"<Guest in {self.sandbox!r}, {bytes(self.stderr[-2000:]).decode(errors='replace')}>"

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self.sandbox.stdout, self._read, self.sandbox.stdout, self.stdout)
        loop.add_reader(self.sandbox.stderr, self._read, self.sandbox.stderr, self.stderr)
        await loop.connect_accepted_socket(lambda: self.session, self.sandbox.channel)

    def load(self, handler: str, mode: str = "process", concurrency: int = 1, **environment: str) -> None:
        self.session.load(
            Load(
                code=self.sandbox.code_path,
                handler=handler,
                mode=mode,
                concurrency=concurrency,
                function="puppet",
                memory_mb=128,
                log_bytes=KEPT_BYTES,
                result_bytes=RESULT_BYTES,
                environment=environment,
            )
        )

    def start(self, event: object, budget_ms: int = BUDGET_MS) -> Call:
        """Send a call; bytes are sent as they are."""
        call = Call()
        body = event if isinstance(event, bytes) else msgspec.json.encode(event)
        call.number = self.session.call(call, secrets.token_bytes(16), budget_ms, body)
        return call

    def queue(self, event: object, permits: int) -> Call:
        """Have a call sent with the next `send_queued`, with so many permits for it."""
        assert self.sandbox.permits is not None
        call = Call()
        body = msgspec.json.encode(event)
        call.number = self.session.queue(call, secrets.token_bytes(16), BUDGET_MS, body)
        if permits:
            os.write(self.sandbox.permits, PERMIT * permits)
        return call

    def expect(self) -> Call:
        """Listen to a call that the test itself says."""
        call = Call()
        call.number = self.session.queue(call, secrets.token_bytes(16), BUDGET_MS, b"")
        self.session._queued.clear()
        return call

    def say(self, kind: int, payload: bytes = b"", number: int = 0) -> None:
        """Send a frame that no session sends."""
        self.session._write(HEADER.pack(len(payload), kind, number) + payload)

    async def end(self, call: Call) -> Answer:
        """How the call ends, be it by the sandbox's end."""
        await asyncio.wait([call.end, self.over, self.sandbox.ended], return_when=asyncio.FIRST_COMPLETED)
        if not call.end.done():
            await asyncio.wait([self.over])  # an answer may be on its way still
        return call.end.result() if call.end.done() else Answer(ending=await self.sandbox.ended)

    async def call(self, event: object = b"", budget_ms: int = BUDGET_MS) -> Answer:
        return await self.end(self.start(event, budget_ms))

    async def settle_output(self) -> None:
        """Take what is in the pipes."""
        for descriptor, kept in ((self.sandbox.stdout, self.stdout), (self.sandbox.stderr, self.stderr)):
            self._read(descriptor, kept)

    async def leave(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.sandbox.stdout)
        loop.remove_reader(self.sandbox.stderr)
        self.session.close()
        await self.sandbox.destroy()

    def _read(self, descriptor: int, kept: bytearray) -> None:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        if kept is self.stdout:
            self.stdout_bytes += len(data)
        keep(kept, data)
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)

    # What the session tells

    def connected(self) -> None: ...
    def greeted(self, can_queue: bool) -> None:
        self.greeting.set_result(can_queue)

    def loaded(self, load_ns: int) -> None:
        self.loading.set_result(None)

    def load_failed(self, error: FunctionError) -> None:
        self.loading.set_result(error)

    def session_ended(self, reason: str) -> None:
        self.over.set_result(reason)


def keep(kept: bytearray, data: bytes) -> None:
    kept += data[: max(0, KEPT_BYTES - len(kept))]


async def invite(
    backend: Backend, id: str, launch: Launch, code: Path = PUPPET, limits: Limits | None = None
) -> Guest:
    """A sandbox with its server starting inside, nothing loaded."""
    spec = SandboxSpec(id=id, launch=launch, limits=limits or Limits(), code=code)
    guest = Guest(await backend.create(spec))
    await guest.connect()
    return guest
