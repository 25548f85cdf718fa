"""A live helper under any packets and any descriptors: it lives, loses none, and makes good orders only."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import leaks
from fuzz.targets import is_good
from sandboxes.lean.conftest import unopened
from sandboxes.lean.guests import LAUNCHES, helper_of
from sandboxes.lean.test_commands import packets
from stoker.sandboxes.lean import Backend
from stoker.sandboxes.lean.packets import (
    DESTROY,
    ENDED,
    FAILED,
    HAS_CODE,
    HAS_WORKSPACE,
    HEAD,
    MADE,
    MAKE,
    MAKE_BODY,
    MAX_OPENING,
    MOST_SPARES,
    OPENING,
    READY,
    RELEASE,
    SPARES,
    WANT,
    WANT_BODY,
    Make,
    pack,
    receive,
    send,
    unpack,
)
from stoker.sandboxes.lean.privileged.spares import FIRST_NUMBER
from stoker.types import MEBIBYTE

assert unopened  # a fixture
SENTINEL = FIRST_NUMBER - 1
FOLDERS = ("folder", "folder by path", "folder that is gone", "folder of /proc")


@pytest.fixture
def spares() -> int:
    return 0


class Node:
    """The node's end of the socket to a helper that is ready."""

    def __init__(self, end: socket.socket, guardian: int) -> None:
        self.end = end
        self.guardian = guardian
        self.helper = helper_of(guardian)
        self.wait(MAKE, 0, pack(MAKE, 1, good_body()))
        self.destroy(1)
        self.opened = self.count()

    def opened_since(self) -> int:
        """So many descriptors more than at first are open and stay so."""
        give_up = time.monotonic() + leaks.PATIENCE_S
        while (more := self.count() - self.opened) and time.monotonic() < give_up:
            threading.Event().wait(0.005)  # it may be about something that nobody asked for
        return more

    def count(self) -> int:
        return len(os.listdir(f"/proc/{self.helper}/fd"))

    def destroy(self, number: int) -> None:
        self.wait(ENDED, number, pack(DESTROY, number))

    def wait(self, kind: int, number: int, packet: bytes, descriptors: tuple[int, ...] = ()) -> int:
        """Send, and hear of `number` until its end, or until it is made; which of them it was."""
        send(self.end, packet, descriptors)
        while True:
            heard, about, _ = self.hear()
            assert heard in (MADE, FAILED, ENDED), "the helper has died, or says what it should not"
            if about == number or (kind == MAKE and heard in (MADE, FAILED)):
                return heard

    def hear(self) -> tuple[int, int, bytes]:
        packet, descriptors = receive(self.end)
        for descriptor in descriptors:
            os.close(descriptor)
        return unpack(packet)


def good_body(**changes: object) -> bytes:
    good = Make(0, 0, 64 * MEBIBYTE, 1000, 16, MEBIBYTE, 100, b"guest")
    return good._replace(**changes).pack()  # type: ignore[arg-type]


@pytest.fixture
def node(unopened: Backend, node_id: str) -> Iterator[Node]:
    unopened.prepare()
    end = unopened._end
    assert end is not None and unopened._process is not None
    end.settimeout(30)
    assert unpack(receive(end)[0])[0] == READY
    yield Node(end, unopened._process.pid)
    asyncio.run(unopened.close())
    assert leaks.left([node_id]) == []


def gone() -> int:
    folder = tempfile.mkdtemp()
    descriptor = os.open(folder, os.O_RDONLY)
    os.rmdir(folder)
    return descriptor


def waiting() -> int:
    with select.epoll() as waiting:
        return os.dup(waiting.fileno())


def reading_end() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def path_of(path: str, flags: int = os.O_RDONLY) -> Callable[[], int]:
    return lambda: os.open(path, flags)


KINDS = MappingProxyType(
    {
        "folder": path_of("/tmp"),
        "folder by path": path_of("/usr", os.O_PATH | os.O_DIRECTORY),
        "folder that is gone": gone,
        "folder of /proc": path_of("/proc/self"),
        "file": path_of("/etc/passwd"),
        "file by path": path_of("/etc/passwd", os.O_PATH),
        "link by path": path_of("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW),
        "file of /proc": path_of("/proc/self/status"),
        "memory of a process": path_of("/proc/self/mem"),
        "namespace": path_of("/proc/self/ns/net"),
        "device": path_of("/dev/null"),
        "nameless file": path_of("/tmp", os.O_TMPFILE | os.O_RDWR),
        "memfd": lambda: os.memfd_create("x"),
        "pipe": reading_end,
        "event": lambda: os.eventfd(0),
        "epoll": waiting,
        "process": lambda: os.pidfd_open(os.getpid()),
        "stream": lambda: socket.socket(socket.AF_UNIX).detach(),
        "packets": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
        "internet": lambda: socket.socket(socket.AF_INET).detach(),
    }
)

edges = st.sampled_from([0, 1, 16, 2**22, 2**22 + 1, 2**31, 2**32 - 1])
wide = st.one_of(st.sampled_from([0, 1, 2**62 - 1, 2**62, 2**64 - 1]), st.integers(2**20, 2**26))
names = st.one_of(
    st.sampled_from([b"guest", b"a", b"../up", b"a/b", b".", b"..", b"cgroup.procs", b"tasks", b"x\0y", b""]),
    st.from_regex(rb"[a-z0-9_.-]{1,64}", fullmatch=True),
    st.binary(max_size=64),
)
near_orders = st.builds(
    lambda number, opening, *fields: pack(MAKE, number, MAKE_BODY.pack(*fields) + opening),
    st.integers(2, 2**40),
    st.one_of(
        st.builds(
            lambda length, said: OPENING.pack(length) + said, edges.filter((2**16).__gt__), st.binary()
        ),
        st.builds(lambda said: OPENING.pack(len(said)) + said, st.binary(max_size=40)),
    ),
    st.sampled_from([0, 1, len(LAUNCHES) - 1, len(LAUNCHES), 65535]),
    st.sampled_from([0, 0, HAS_CODE, HAS_WORKSPACE, HAS_CODE | HAS_WORKSPACE, 4, 5, 12, 16, 65535]),
    wide,
    edges,
    edges,
    wide,
    st.one_of(edges, st.just(100)),
    names,
    wide,
)


near_wants = st.builds(
    lambda kind, number, order: pack(WANT, kind, WANT_BODY.pack(number, 1) + order[HEAD.size :]),
    st.sampled_from([1, 2, 15, 16, 2**40, 2**64 - 1]),
    st.sampled_from([0, 0, MOST_SPARES + 1, 65535]),
    near_orders,
)


releases = st.builds(lambda lineage: pack(RELEASE, lineage), st.sampled_from([0, 1, 2, 2**64 - 1]))


def is_for_making(packet: bytes, kinds: list[str]) -> bool:
    """Whether the packet with these descriptors is a good order, as a second reader sees it."""
    start = HEAD.size + MAKE_BODY.size + OPENING.size
    if len(packet) < start or len(packet) - start != OPENING.unpack(packet[start - OPENING.size : start])[0]:
        return False
    kind, number, body = unpack(packet)
    order = Make(*MAKE_BODY.unpack_from(body))
    folders = bool(order.flags & HAS_CODE) + bool(order.flags & HAS_WORKSPACE)
    return (
        kind == MAKE
        and len(packet) - start <= MAX_OPENING
        and number < FIRST_NUMBER
        and is_good(order, len(LAUNCHES))
        and len(kinds) == folders
        and set(kinds) <= set(FOLDERS)
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packet=st.one_of(packets, near_orders, near_wants, releases).filter(bool),
    kinds=st.one_of(
        st.lists(st.sampled_from(sorted(KINDS)), max_size=20), st.lists(st.sampled_from(FOLDERS), max_size=2)
    ),
)
def test_a_helper_makes_good_orders_and_bears_everything_else(
    node: Node, packet: bytes, kinds: list[str]
) -> None:
    descriptors = tuple(KINDS[kind]() for kind in kinds)
    send(node.end, packet, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    send(node.end, pack(MAKE, SENTINEL, b"short"))
    number = unpack(packet.ljust(HEAD.size, b"\0"))[1]
    is_awaited, is_answered = is_for_making(packet, kinds), False
    while is_awaited or not is_answered:
        kind, about, _ = node.hear()
        assert kind in (MADE, FAILED, SPARES), "the helper has died, or says what it should not"
        if kind == SPARES:
            assert unpack(packet)[0] == WANT
        elif about == SENTINEL:
            is_answered = True
        else:
            assert about == number
            assert kind == FAILED or is_awaited, "made what was no good order"
            is_awaited = False
            if kind == MADE:
                node.destroy(number)
    assert helper_of(node.guardian) == node.helper
    assert node.opened_since() == 0
