"""Runs one build step in a sandbox of its own: strangers' archives and installers, behind walls."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import msgspec

from stoker.errors import SandboxFailed, SandboxLost
from stoker.pool.live import Guest, Live
from stoker.pool.readers import Readers
from stoker.runtimes.greeting import Load
from stoker.sandboxes.contract import Backend, Launch, SandboxSpec
from stoker.types import Ending, FunctionError, Limits, Logs, Network, Outcome, Phases, Status, Usage

OUTPUT_KEPT_BYTES = 64 * 1024


class Step(Guest):
    """One build step inside: hears its answer and keeps the tail of its output."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[Status, bytes, FunctionError | None]]
        self.done = asyncio.get_running_loop().create_future()
        self.output = bytearray()

    def _finish(self, status: Status, result: bytes, error: FunctionError | None) -> None:
        if not self.done.done():
            self.done.set_result((status, result, error))

    def wrote(self, stream: int, data: bytes) -> None:
        self.output += data
        del self.output[:-OUTPUT_KEPT_BYTES]

    def loaded(self) -> None:
        pass

    def taken_back(self) -> None:
        pass

    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
        self._finish(Status.OK, result, None)

    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None:
        self._finish(Status.FUNCTION_ERROR, b"", error)

    def load_failed(self, error: FunctionError) -> None:
        self._finish(Status.FUNCTION_ERROR, b"", error)

    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None:
        self._finish(Status.CRASHED, b"", FunctionError("Exited", f"exit code {exit_code}, signal {signal}"))

    def sandbox_ended(self, ending: Ending, reason: str) -> None:
        if ending.lost:
            if not self.done.done():
                self.done.set_exception(SandboxLost())
        elif ending.out_of_memory:
            self._finish(
                Status.OUT_OF_MEMORY, b"", FunctionError("OutOfMemory", "the build ran out of memory")
            )
        else:
            what = reason or f"exit code {ending.exit_code}, signal {ending.signal}"
            self._finish(Status.CRASHED, b"", FunctionError("Crashed", f"the build ended early: {what}"))


class Workshop:
    """Makes a sandbox for each step, writable at one folder, and destroys it afterwards."""

    def __init__(self, backend: Backend, launch: Launch, code: Path) -> None:
        self._backend = backend
        self._launch = launch
        self._code = code
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Workshop on {self._backend.name}>"

    async def run(
        self, event: dict[str, object], workspace: Path, limits: Limits, network: Network
    ) -> Outcome:
        """One step with its limits, its time among them. Raises `SandboxFailed`."""
        name = f"build_{next(self._numbers)}"
        spec = SandboxSpec(
            id=name, launch=self._launch, limits=limits, code=self._code, workspace=workspace, network=network
        )
        sandbox = await self._backend.create(spec)
        step, readers = Step(), Readers()
        try:
            live = Live(name, sandbox, self._load(sandbox.code_path, limits), on_end=lambda: None)
            try:
                await live.connect(readers)
                body = msgspec.json.encode({**event, "workspace": sandbox.workspace_path})
                live.enter(step, os.urandom(16), int(limits.timeout_s * 1000), body, runs_at_once=True)
                status, result, error = await self._wait(step, limits.timeout_s)
                live.drain()
            finally:
                live.close()
                readers.close()
        except OSError as error_:
            raise SandboxFailed(f"a build's sandbox could not be reached: {error_}") from error_
        finally:
            await asyncio.shield(sandbox.destroy())
        logs = Logs(stdout=bytes(step.output))
        return Outcome(
            invocation=name,
            function=name,
            status=status,
            result=result,
            error=error,
            logs=logs,
            phases=Phases(),
            usage=Usage(),
        )

    @staticmethod
    async def _wait(step: Step, timeout_s: float) -> tuple[Status, bytes, FunctionError | None]:
        try:
            async with asyncio.timeout(timeout_s):
                return await step.done
        except TimeoutError:
            message = f"the build took longer than its limit of {timeout_s:g} s"
            return Status.TIMED_OUT, b"", FunctionError("TimedOut", message)

    @staticmethod
    def _load(code_path: str, limits: Limits) -> Load:
        return Load(
            code=code_path,
            handler="build.handler",
            mode="process",
            concurrency=1,
            function="build",
            memory_mb=limits.memory_mb,
            log_bytes=limits.log_bytes,
            result_bytes=limits.result_bytes,
            environment={},
        )
