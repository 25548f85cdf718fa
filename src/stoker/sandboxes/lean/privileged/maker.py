"""The helper itself: MAKE and DESTROY come from the node, MADE, FAILED and ENDED go back.

It believes the node nothing but the shape of a packet, and inside a sandbox nothing at all. It has one thread
and waits for no sandbox.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time

from stoker.linux.processes import Reaped, children, reap
from stoker.sandboxes.lean.packets import (
    DESTROY,
    ENDED,
    ENDED_BODY,
    FAILED,
    KILLED,
    KILLED_BODY,
    MADE,
    MADE_BODY,
    MAKE,
    MAX_TEXT,
    MOUNTED,
    NOT_COUNTED,
    READY,
    RELEASE,
    RENEW,
    RENEWED,
    RENEWED_BODY,
    RUNNING,
    STATUS,
    TROUBLE,
    UNRENEWED,
    WAIT_STATUS,
    WANT,
    Ended,
    Make,
    pack,
    receive,
    send,
    unpack,
)
from stoker.sandboxes.lean.privileged.loop import Loop
from stoker.sandboxes.lean.privileged.orders import take_make, take_want
from stoker.sandboxes.lean.privileged.sandbox import Means, Sandbox
from stoker.sandboxes.lean.privileged.spares import FIRST_NUMBER, Spares
from stoker.sandboxes.lean.privileged.succession import Succession
from stoker.sandboxes.lean.privileged.watch import Watch
from stoker.sandboxes.lean.privileged.zygotes import Start, close_all


class Helper:
    """Everything the helper has. Numbers below `first` are those of helpers before it."""

    def __init__(self, link: socket.socket, first: int, means: Means, loop: Loop, spares: Spares) -> None:
        self._link = link
        self._first = first
        self._means = means
        self._loop = loop
        self._spares = spares
        self._launches: list[Succession] = []
        self._sandboxes: dict[int, Sandbox] = {}
        self._unmade: set[Sandbox] = set()
        """Those that were asked for and are not made yet."""
        self._is_closing = False
        self._watch: Watch | None = None

    def __repr__(self) -> str:
        return f"<Helper {len(self._sandboxes)} sandboxes, {len(self._launches)} launches>"

    def open(self, starts: list[Start], filters: tuple[bytes, ...], eager: int, memory_bytes: int) -> None:
        """Make ready, and start the zygotes of the first `eager` launches."""
        self._means.groups.open()
        if memory_bytes:
            self._means.groups.bound_all(memory_bytes)
        if "memory" not in self._means.groups.controllers:
            self._watch = Watch(self._loop, self._tell_of_kill)
        lineages = itertools.count(self._first + 1)
        self._launches = [
            Succession(index, start, filters, self._loop, self, lineages)
            for index, start in enumerate(starts)
        ]
        self._loop.watch(self._link.fileno(), self._read)
        self._tell(pack(READY, 0, " ".join(sorted(self._means.groups.controllers)).encode()))
        for launch in self._launches[:eager]:
            launch.start()

    def close(self) -> None:
        """End every sandbox; the last one's end stops the loop. Idempotent."""
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.unwatch(self._link.fileno())
        # Where it is the guardian that has gone, the node hears so before it sees its sandboxes end.
        self._link.shutdown(socket.SHUT_RDWR)
        for sandbox in self._sandboxes.values():
            sandbox.destroy()
        self._stop_if_over()

    def _stop_if_over(self) -> None:
        if self._is_closing and not self._sandboxes:
            for launch in self._launches:
                launch.close()
            self._loop.stop()

    # What the node says

    def _read(self) -> None:
        packet, descriptors = receive(self._link)
        if not packet:
            self.close()
            return
        kind, number, body = unpack(packet.ljust(9, b"\0"))
        is_for_us = self._first <= number < FIRST_NUMBER
        if kind == MAKE and is_for_us and number not in self._sandboxes:
            self._make(number, body, descriptors)
            return
        if kind == WANT:
            self._want(number, body, descriptors)
        close_all(descriptors)
        for launch in self._launches if kind in (RENEW, RELEASE) else ():
            (launch.renew if kind == RENEW else launch.release)(number)
        if kind == DESTROY and is_for_us and number in self._sandboxes:
            self._sandboxes[number].is_destroyed = True
            if not self._means.groups.counts_use:
                self._sandboxes[number].look_at_use()
            self._sandboxes[number].end()

    def _make(self, number: int, body: bytes, descriptors: list[int]) -> None:
        try:
            order = take_make(body, descriptors, len(self._launches))
        except ValueError as error:
            close_all(descriptors)
            self._tell(pack(FAILED, number, str(error).encode()[:MAX_TEXT]))
            return
        spare = self._spares.take(order)
        if spare is None:
            self._start(Sandbox(number, order, descriptors, self._means))
        else:
            self._give_away(spare, number, order, descriptors)

    def _want(self, kind: int, body: bytes, descriptors: list[int]) -> None:
        try:
            number, word, pattern = take_want(kind, body, descriptors, len(self._launches))
        except ValueError:
            return  # the node says no such thing
        if word < self._first:
            return
        for odd in self._spares.want(kind, number, word, pattern):
            odd.destroy()
        self._tell(self._spares.told(kind))

    def _start(self, sandbox: Sandbox) -> None:
        if sandbox.number < FIRST_NUMBER:
            self._unmade.add(sandbox)
        self._sandboxes[sandbox.number] = sandbox
        try:
            fork, given = sandbox.make()
        except OSError as error:
            sandbox.trouble = str(error)
            self._finish(sandbox)
            return
        launch = self._launches[sandbox.order.launch]
        sandbox.lineage = launch.order(sandbox.number, fork, given, sandbox.order.lineage)

    def _give_away(self, spare: Sandbox, number: int, order: Make, descriptors: list[int]) -> None:
        self._stop_awaiting(spare)
        self._sandboxes[number] = self._sandboxes.pop(spare.number)
        self._unmade.add(spare)
        try:
            spare.become(number, order, descriptors)
        except OSError as error:
            spare.trouble = str(error)
            spare.end()
            return
        if spare.is_running:
            self._announce(spare)

    def _announce(self, sandbox: Sandbox) -> None:
        ends = sandbox.give_ends()
        which, counters = sandbox.gauges.told() if sandbox.gauges is not None else (0, ())
        body = MADE_BODY.pack(sandbox.pid, *self._spares.left_by(sandbox), which, sandbox.lineage)
        self._tell(pack(MADE, sandbox.number, body + sandbox.group_name), ends + counters)
        close_all(ends)
        sandbox.is_told = True
        self._unmade.discard(sandbox)
        if self._watch is not None:
            self._watch.add(sandbox)

    def _tell_of_kill(self, sandbox: Sandbox) -> None:
        self._tell(pack(KILLED, sandbox.number, KILLED_BODY.pack(sandbox.oom_kills)))

    def make_spare(self) -> bool:
        """Begin to make one spare, or something that the next ones take; whether there may be more to do."""
        if self._is_closing or self._unmade or not self._spares.are_wanted:
            return False
        wanted = self._spares.next()
        if wanted is None:
            return self._replace_spare() or (not self._spares.is_short() and self._means.make_ready())
        kind, number, order = wanted
        spare = Sandbox(number, order, [], self._means)
        self._spares.begun(kind, spare)
        self._start(spare)
        return True

    def _replace_spare(self) -> bool:
        outdated = self._spares.outdated()
        if outdated is not None:
            outdated.destroy()
        return outdated is not None

    def is_short_of_spares(self) -> bool:
        """Whether to make one at once: few are left, and nobody waits for what was asked for."""
        return not self._unmade and self._spares.is_short()

    def _tell(self, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
        if self._is_closing:
            return
        try:
            send(self._link, packet, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the loop will read its end

    # What the zygotes say

    def forked(self, number: int, pid: int, pidfd: int) -> None:
        sandbox = self._sandboxes[number]
        sandbox.pid, sandbox.pidfd = pid, pidfd
        assert sandbox.private is not None
        self._loop.watch(sandbox.private.fileno(), lambda: self._hear(sandbox))
        self._loop.watch(pidfd, lambda: self._reap(sandbox))
        if sandbox.is_destroyed:
            sandbox.end()

    def _move_in(self, sandbox: Sandbox) -> None:
        """Its root stands and no program runs in it yet."""
        try:
            sandbox.assign()
            if sandbox.number < FIRST_NUMBER:
                sandbox.admit()
                sandbox.open()
        except OSError as error:
            sandbox.trouble = str(error)
            sandbox.end()
            return
        sandbox.release()

    def refused(self, number: int, text: str, may_succeed: bool = False) -> None:
        sandbox = self._sandboxes[number]
        sandbox.trouble, sandbox.may_succeed = text, may_succeed
        self._finish(sandbox)

    def zygote_ended(self) -> None:
        known = {sandbox.pid for sandbox in self._sandboxes.values()}
        known |= {pid for launch in self._launches for pid in launch.pids} | self._means.way.pids
        for pid in children() - known:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def renewed(self, launch: int, former: int, lineage: int) -> None:
        self._spares.renewed(launch, lineage)
        self._tell(pack(RENEWED, launch, RENEWED_BODY.pack(former, lineage)))

    def unrenewed(self, launch: int, text: str) -> None:
        self._tell(pack(UNRENEWED, launch, text.encode()[:MAX_TEXT]))

    # What the sandboxes say

    def _hear(self, sandbox: Sandbox) -> bool:
        """Take one word of a sandbox's first process; whether there was one."""
        said = sandbox.hear()
        if said is None:
            return False
        kind, rest = said[:1], said[1:]
        if kind == RUNNING and sandbox.number >= FIRST_NUMBER:
            sandbox.is_running = True
            sandbox.greeting = sandbox.channel
            self._loop.watch(sandbox.greeting, lambda: self._greeted(sandbox))
        elif kind == RUNNING:
            self._announce(sandbox)
            sandbox.is_running = True
        elif kind == MOUNTED:
            sandbox.is_mounted = True
            self._move_in(sandbox)
        elif kind == TROUBLE:
            sandbox.trouble = rest.decode(errors="replace")
        elif kind == STATUS:
            (sandbox.status,) = WAIT_STATUS.unpack(rest)
        else:  # it has ended, or will now
            self._stop_hearing(sandbox)
            sandbox.end()
        return bool(said)

    def _greeted(self, spare: Sandbox) -> None:
        """Its program is up, which for an interpreter of its own is most of the work: now it is made."""
        self._stop_awaiting(spare)
        self._spares.made(spare, time.monotonic() - spare.begun_at)

    def _stop_awaiting(self, spare: Sandbox) -> None:
        if spare.greeting >= 0:
            self._loop.unwatch(spare.greeting)
            spare.greeting = -1

    def _stop_hearing(self, sandbox: Sandbox) -> None:
        assert sandbox.private is not None
        if sandbox.private.fileno() >= 0:
            self._loop.unwatch(sandbox.private.fileno())
            sandbox.private.close()

    def _reap(self, sandbox: Sandbox) -> None:
        """Its first process has ended, and so, by the kernel's word, has every other."""
        reaped = reap(sandbox.pid)
        if reaped is None:
            return
        if self._watch is not None:
            self._watch.drop(sandbox)
        while sandbox.private is not None and sandbox.private.fileno() >= 0 and self._hear(sandbox):
            pass
        if sandbox.status < 0:
            sandbox.status = reaped.status
        self._loop.unwatch(sandbox.pidfd)
        self._finish(sandbox, reaped)

    def _finish(self, sandbox: Sandbox, reaped: Reaped | None = None) -> None:
        """Count, give everything back, and tell the node."""
        counts, carried = sandbox.counts(), sandbox.carried()
        if reaped is not None:
            peak, cpu_ns = max(reaped.peak_bytes, sandbox.peak_bytes), max(reaped.cpu_ns, sandbox.cpu_ns)
            counts = counts.filled_up(sandbox.oom_kills, peak, cpu_ns)
        if sandbox.private is not None and sandbox.pid:
            self._stop_hearing(sandbox)
        self._stop_awaiting(sandbox)
        sandbox.clear()
        del self._sandboxes[sandbox.number]
        self._unmade.discard(sandbox)
        if sandbox.number >= FIRST_NUMBER:
            self._tell(self._spares.told(self._spares.ended(sandbox)))
        elif sandbox.is_told:
            ended = Ended(
                sandbox.status,
                counts.oom_kills or 0,
                counts.forks_refused or 0,
                NOT_COUNTED if counts.cpu_ns is None else counts.cpu_ns,
                NOT_COUNTED if counts.memory_peak_bytes is None else counts.memory_peak_bytes,
                sandbox.is_destroyed,
                *carried,
            )
            self._tell(pack(ENDED, sandbox.number, ENDED_BODY.pack(*ended)))
        else:
            self._tell(sandbox.failure())
            if sandbox.kind >= 0:
                self._tell(self._spares.told(sandbox.kind))
        self._stop_if_over()
