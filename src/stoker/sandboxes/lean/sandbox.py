"""One lean sandbox as the node holds it: its descriptors, and a number to speak of it with the helper."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import msgspec

from stoker.linux.cgroups import Group
from stoker.linux.family import spent
from stoker.linux.gauges import CPU, FORKS_REFUSED, MEMORY_PEAK, OOM_KILLS, Gauges
from stoker.linux.network import read_traffic
from stoker.sandboxes import contract
from stoker.sandboxes.lean.packets import ENDED_BODY, NOT_COUNTED, Ended
from stoker.types import Ending, Hits, Usage


class Traces:
    """What a living sandbox tells of itself: by its cgroup, and where there is none by its processes."""

    def __init__(self, pid: int, group: Group, gauges: Gauges, hear: Callable[[], None]) -> None:
        self.pid = pid
        """Its first process, of which all others descend."""
        self.oom_kills = 0
        """As the helper has told."""
        self._group = group
        self._gauges = gauges
        self._hear = hear
        self._peak_bytes = 0

    def __repr__(self) -> str:
        return f"<Traces of process {self.pid} in {self._group!r}>"

    def close(self) -> None:
        """Idempotent."""
        self._gauges.close()

    def usage(self) -> Usage:
        peak, cpu_ns = self._gauges.read(MEMORY_PEAK), self._gauges.read(CPU)
        if peak is None or cpu_ns is None:
            cpu_s, largest = spent(self.pid)
            self._peak_bytes = max(self._peak_bytes, largest)
            peak = self._peak_bytes if peak is None else peak
            cpu_ns = int(cpu_s * 1e9) if cpu_ns is None else cpu_ns
        return usage_of(peak, cpu_ns)

    def held_bytes(self) -> int | None:
        return self._group.held_bytes()

    def hits(self) -> Hits:
        oom_kills = self._gauges.read(OOM_KILLS)
        if oom_kills is None:
            self._hear()  # it may have been told and not yet read
            oom_kills = self.oom_kills
        return Hits(oom_kills=oom_kills, forks_refused=self._gauges.read(FORKS_REFUSED) or 0)


class Sandbox(contract.Sandbox):
    """Made by `Backend.create`."""

    def __init__(self, id: str, descriptors: list[int], traces: Traces, end: Callable[[], None]) -> None:
        self.id = id
        channel, *self._descriptors = descriptors
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=channel)
        self.stdout, self.stderr, self.permits, self._scratch, *self._traffic = self._descriptors
        self.code_path = contract.CODE_PATH
        self.workspace_path = contract.WORKSPACE_PATH
        self.ended = asyncio.get_running_loop().create_future()
        self.traces = traces
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
            self.traces.close()
            for descriptor in self._descriptors:
                os.close(descriptor)
        # Not the future itself: a caller that is cancelled must not take the ending from the others.
        await asyncio.shield(self.ended)

    def usage(self) -> Usage:
        if self.ended.done():
            return self.ended.result().usage
        if self._is_closed:
            return Usage()
        usage = self.traces.usage()
        if self._traffic:
            received, sent = read_traffic(self._traffic[0])
            return msgspec.structs.replace(usage, network_in_bytes=received, network_out_bytes=sent)
        return usage

    def held_bytes(self) -> int | None:
        return None if self._is_closed else self.traces.held_bytes()

    def hits(self) -> Hits:
        if self._is_closed:
            return self.ended.result().hits if self.ended.done() else Hits()
        hits = self.ended.result().hits if self.ended.done() else self.traces.hits()
        return msgspec.structs.replace(hits, is_disk_full=is_full(self._scratch))


def is_full(folder: int) -> bool:
    """Whether the file system of a folder takes no byte more, or no file."""
    state = os.fstatvfs(folder)
    return not state.f_bavail or not state.f_favail


def usage_of(
    memory_peak_bytes: int | None,
    cpu_ns: int | None,
    in_bytes: int | None = None,
    out_bytes: int | None = None,
) -> Usage:
    return Usage(
        cpu_ms=None if cpu_ns is None else cpu_ns / 1e6,
        memory_peak_bytes=memory_peak_bytes,
        network_in_bytes=in_bytes,
        network_out_bytes=out_bytes,
    )


def ending_of(body: bytes) -> Ending:
    """The helper's facts in the node's words."""
    ended = Ended(*ENDED_BODY.unpack(body))
    has_exited = not ended.destroyed and os.WIFEXITED(ended.status)
    was_killed = not ended.destroyed and os.WIFSIGNALED(ended.status)
    number = os.WTERMSIG(ended.status) if was_killed else None
    return Ending(
        exit_code=os.WEXITSTATUS(ended.status) if has_exited else None,
        signal=number,
        out_of_memory=ended.oom_kills > 0 and (bool(ended.destroyed) or number == signal.SIGKILL),
        destroyed=bool(ended.destroyed),
        hits=Hits(oom_kills=ended.oom_kills, forks_refused=ended.forks_refused),
        usage=usage_of(*map(_counted, (ended.memory_peak_bytes, ended.cpu_ns, *ended[-2:]))),
    )


def _counted(value: int) -> int | None:
    return None if value == NOT_COUNTED else value
