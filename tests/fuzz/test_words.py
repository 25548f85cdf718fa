"""A helper whose sandboxes say anything: each start ends once, and nothing is lost or made twice."""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.linux.cgroups import Groups
from stoker.linux.mounts import MountNamespace
from stoker.linux.network import Networks
from stoker.linux.places import Places
from stoker.linux.syscalls import PR_SET_PDEATHSIG, prctl
from stoker.linux.users import UserNamespaces
from stoker.sandboxes.lean.egress.way import Way
from stoker.sandboxes.lean.packets import (
    DESTROY,
    ENDED,
    FAILED,
    MADE,
    MAKE,
    MOUNTED,
    READY,
    RUNNING,
    SPARES,
    STATUS,
    TROUBLE,
    WAIT_STATUS,
    WANT,
    WANT_BODY,
    Fork,
    Make,
    pack,
    receive,
    send,
    unpack,
)
from stoker.sandboxes.lean.privileged.loop import Loop
from stoker.sandboxes.lean.privileged.maker import Helper
from stoker.sandboxes.lean.privileged.sandbox import Means, Slots
from stoker.sandboxes.lean.privileged.spares import Spares
from stoker.sandboxes.lean.privileged.zygotes import close_all
from stoker.types import MEBIBYTE

Word = tuple[bytes, int]
"""What is said, and how many descriptors come with it."""
Script = list[Word]

GOOD: Script = [(MOUNTED, 0), (RUNNING, 1), (STATUS + WAIT_STATUS.pack(0), 0)]
ORDER = Make(0, 0, 64 * MEBIBYTE, 1000, 16, MEBIBYTE, 100, b"guest").pack()
PRIVATE = 4  # its place in an order

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a helper of namespaces needs root")


class Liars:
    """In the place of a zygote: forks what says the next script; after the last, what says what it must."""

    def __init__(self, scripts: list[Script], owner: Helper) -> None:
        self._scripts = scripts
        self._owner = owner
        self.pids: list[int] = []

    def start(self) -> None: ...
    def close(self) -> None: ...

    def order(self, number: int, fork: Fork, descriptors: tuple[int, ...], lineage: int) -> int:
        script = self._scripts.pop(0) if self._scripts else None
        pid = os.fork()
        if pid == 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            try:
                say(descriptors[PRIVATE], script)
            finally:
                os._exit(0)
        close_all(descriptors)
        self._owner.forked(number, pid, os.pidfd_open(pid))
        return 1


def say(private: int, script: Script | None) -> None:
    with socket.socket(fileno=private) as helper:
        for word, descriptors in GOOD[:2] if script is None else script:
            send(helper, word, tuple(os.open("/tmp", os.O_PATH) for _ in range(descriptors)))
        if script is None:
            signal.pause()


def be_helper(link: socket.socket, scripts: list[Script]) -> None:
    loop = Loop()
    way = Way("fuzz", None, (), lambda descriptor, call: None)
    groups = Groups((), "fuzz")
    means = Means(
        groups,
        Places(groups),
        Networks(),
        MountNamespace(),
        os.pidfd_open(os.getpid()),
        UserNamespaces(),
        Slots(100),
        0,
        False,
        way,
        "/app/function",
        "/build",
    )
    helper = Helper(link, 0, means, loop, Spares(at_once=2))
    helper.open([], (), 0, 0)
    helper._launches.append(Liars(scripts, helper))  # type: ignore[arg-type]
    loop.run(helper.make_spare, helper.is_short_of_spares)


def converse(scripts: list[Script], spares: int) -> Iterator[tuple[int, int, int]]:
    """Kind, number and descriptors of everything that the node hears, until all starts have ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            ours.close()
            be_helper(theirs, scripts)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    theirs.close()
    try:
        yield from converse_with(ours, len(scripts) + 1, spares)
    finally:
        ours.close()
        code = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    assert code == 0, "the helper died"


def converse_with(ours: socket.socket, starts: int, spares: int) -> Iterator[tuple[int, int, int]]:
    with ours:
        ours.settimeout(30)
        yield hear(ours)
        send(ours, pack(WANT, 0, WANT_BODY.pack(spares, 1) + ORDER))
        for number in range(1, starts + 1):
            send(ours, pack(MAKE, number, ORDER))
            kind = 0
            while kind not in (ENDED, FAILED):
                kind, about, descriptors = hear(ours)
                if kind != SPARES:
                    yield kind, about, descriptors
                if kind == MADE:
                    send(ours, pack(DESTROY, about))


def hear(link: socket.socket) -> tuple[int, int, int]:
    packet, descriptors = receive(link)
    assert packet, "the helper died"
    close_all(descriptors)
    kind, number, _ = unpack(packet)
    return kind, number, len(descriptors)


words = st.one_of(
    st.sampled_from(
        [MOUNTED, RUNNING, STATUS, TROUBLE, STATUS + WAIT_STATUS.pack(9), TROUBLE + b"no", b"G", b"\0"]
    ),
    st.builds(bytes.__add__, st.sampled_from([MOUNTED, RUNNING, STATUS, TROUBLE]), st.binary(max_size=6)),
    st.binary(min_size=1, max_size=20),
    st.just(TROUBLE + bytes(60_000)),
)
script_of_lies = st.lists(st.tuples(words, st.integers(0, 3)), max_size=6)
half_good = st.tuples(script_of_lies, st.integers(0, 3)).map(lambda both: GOOD[: both[1]] + both[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts=st.lists(half_good, min_size=1, max_size=4), spares=st.sampled_from([0, 2]))
def test_a_helper_bears_whatever_its_sandboxes_say(scripts: list[Script], spares: int) -> None:
    (ready, *_), *heard = converse(scripts, spares)
    assert ready == READY
    kinds: dict[int, list[int]] = {}
    for kind, number, descriptors in heard:
        kinds.setdefault(number, []).append(kind)
        assert descriptors == (5 if kind == MADE else 0)
    assert set(map(tuple, kinds.values())) <= {(MADE, ENDED), (FAILED,)}


def test_what_is_said_as_it_should_be_is_heard_as_it_was_meant() -> None:
    heard = [(kind, number) for kind, number, _ in converse([GOOD], 0)]
    assert heard == [(READY, 0), (MADE, 1), (ENDED, 1), (MADE, 2), (ENDED, 2)]


@pytest.mark.parametrize(
    "script",
    [
        [(RUNNING, 1)],
        [(MOUNTED, 0), (MOUNTED, 0)],
        [(MOUNTED, 1), (RUNNING, 1)],
        [(MOUNTED, 0), (RUNNING, 1), (MOUNTED, 0)],
        [(MOUNTED, 0), (RUNNING, 1), (RUNNING, 1)],
        [(MOUNTED, 0), (RUNNING, 0)],
        [(MOUNTED, 0), (RUNNING, 3)],
        [(MOUNTED, 0), (RUNNING, 1), (STATUS, 0)],
        [(MOUNTED, 0), (RUNNING, 1), (STATUS + b"\0", 0)],
        [(MOUNTED, 0), (RUNNING, 1), (STATUS + WAIT_STATUS.pack(-1), 0)],
        [(MOUNTED, 0), (STATUS + WAIT_STATUS.pack(0), 0)],
        [(MOUNTED, 0), (RUNNING, 1), (TROUBLE + b"late", 2)],
        [(TROUBLE + b"no", 0), (RUNNING, 1)],
    ],
)
@pytest.mark.parametrize("spares", [0, 2])
def test_a_word_that_may_not_come_is_the_end_of_its_sandbox_alone(script: Script, spares: int) -> None:
    numbers: dict[int, list[int]] = {}
    for kind, number, _ in converse([script], spares):
        numbers.setdefault(number, []).append(kind)
    assert numbers[2] == [MADE, ENDED]
    assert numbers[1] in ([MADE, ENDED], [FAILED])
