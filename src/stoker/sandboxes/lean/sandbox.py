"""One lean sandbox as the node holds it: its descriptors, and a number to speak of it with the helper."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from stoker.linux.cgroups import Counts, Group
from stoker.sandboxes import contract
from stoker.sandboxes.lean.packets import ENDED_BODY, NOT_COUNTED, Ended
from stoker.types import Ending, Usage


class Sandbox(contract.Sandbox):
    """Made by `Backend.create`."""

    def __init__(self, id: str, descriptors: list[int], group: Group, end: Callable[[], None]) -> None:
        self.id = id
        channel, *self._descriptors = descriptors
        self.channel = socket.socket(fileno=channel)
        self.stdout, self.stderr, self.permits = self._descriptors
        self.code_path = contract.CODE_PATH
        self.workspace_path = contract.WORKSPACE_PATH
        self.ended = asyncio.get_running_loop().create_future()
        self._group = group
        self._end = end
        self._is_closed = False

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else "being destroyed" if self._is_closed else "running"
        return f"<lean sandbox {self.id}, {state}>"

    async def destroy(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            if not self.ended.done():
                self._end()  # first: the server inside ends by itself when it sees the channel close
            self.channel.close()
            for descriptor in self._descriptors:
                os.close(descriptor)
        # Not the future itself: a caller that is cancelled must not take the ending from the others.
        await asyncio.shield(self.ended)

    def usage(self) -> Usage:
        return self.ended.result().usage if self.ended.done() else usage_of(self._group.counts())

    def oom_kills(self) -> int:
        return self._group.counts().oom_kills


def usage_of(counts: Counts) -> Usage:
    cpu_ms = None if counts.cpu_ns is None else counts.cpu_ns / 1e6
    return Usage(cpu_ms=cpu_ms, memory_peak_bytes=counts.memory_peak_bytes)


def ending_of(body: bytes) -> Ending:
    """The helper's facts in the node's words."""
    ended = Ended(*ENDED_BODY.unpack(body))
    counted = Counts(ended.oom_kills, _counted(ended.memory_peak_bytes), _counted(ended.cpu_ns))
    usage = usage_of(counted)
    if ended.destroyed:
        return Ending(destroyed=True, out_of_memory=ended.oom_kills > 0, usage=usage)
    return Ending(
        exit_code=os.WEXITSTATUS(ended.status) if os.WIFEXITED(ended.status) else None,
        signal=os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else None,
        out_of_memory=ended.oom_kills > 0,
        usage=usage,
    )


def _counted(value: int) -> int | None:
    return None if value == NOT_COUNTED else value
