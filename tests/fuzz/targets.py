"""What is fed with arbitrary bytes, and what must hold whatever they are. Each target raises on a defect."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from runtimes.test_wire import RESULT_BYTES, listen, pieces
from stoker.runtimes.wire import HEADER, SLACK, Session
from stoker.sandboxes.lean.packets import HEAD, MAKE_BODY, Make, unpack
from stoker.sandboxes.lean.privileged.main import take_make

LAUNCHES = 3
ENDS = ("answered", "raised", "exited")


def wire(data: bytes) -> None:
    """From inside a sandbox: a byte that says how many calls there are, three that cut, then the stream."""
    calls, *cuts = data[:4].ljust(4, b"\0")
    session, ear, line = listen(calls=calls % 8, is_loaded=calls >= 128)
    stream = data[4:]
    for part in pieces(stream, [cut * len(stream) // 255 for cut in cuts]):
        if not line.is_aborted:
            session.data_received(part)
        check_session(session, line.is_aborted)
    check_heard(ear.heard)


def check_session(session: Session, is_aborted: bool) -> None:
    """Memory is bounded, and nothing is kept for a call that nobody waits for."""
    assert len(session._buffer) <= RESULT_BYTES + SLACK + HEADER.size
    assert set(session._parts) <= set(session._calls)
    assert all(len(joined) <= RESULT_BYTES + SLACK for _, _, joined in session._parts.values())
    assert session._is_over == is_aborted


def check_heard(heard: list[tuple[object, ...]]) -> None:
    """No call ends twice, and after the session's end nothing is heard."""
    ends = [what[0] for what in heard if what[1] in ENDS]
    assert len(ends) == len(set(ends))
    assert "session_ended" not in [what[0] for what in heard[:-1]]


def orders(data: bytes) -> None:
    """A packet from the node, with as many descriptors as its first byte says; all of them folders' here."""
    packet = data[1:]
    _, _, body = unpack(packet.ljust(HEAD.size, b"\0"))
    try:
        order = take_make(body, [], LAUNCHES)
    except ValueError:
        return
    assert is_good(Make(*MAKE_BODY.unpack(body)), LAUNCHES)
    assert order.name == MAKE_BODY.unpack(body)[-1].rstrip(b"\0")
    assert order.flags & 3 == 0, "descriptors were promised and none was there"


def is_good(order: Make, launches: int) -> bool:
    """What a good order is, said once more and in other words."""
    name = order.name.rstrip(b"\0")
    bounds = (order.memory_bytes, order.millicpus, order.pids, order.scratch_bytes, order.scratch_inodes)
    return (
        order.launch < launches
        and order.flags < 8
        and re.fullmatch(rb"[-_a-z0-9][-._a-z0-9]*", name) is not None
        and all(0 < bound < 1 << 62 for bound in bounds)
        and order.pids <= 1 << 22
    )


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType({"wire": wire, "orders": orders})
