"""What is fed with arbitrary bytes, and what must hold whatever they are. Each target raises on a defect."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from runtimes.test_wire import RESULT_BYTES, listen, pieces
from stoker.egress import is_reachable
from stoker.runtimes.wire import HEADER, SLACK, Session
from stoker.sandboxes.lean.egress.frames import MOST_ADDRESSES, OPEN_BODY, Open
from stoker.sandboxes.lean.packets import EGRESS, HEAD, HOST_NETWORK, MAKE_BODY, Make, unpack
from stoker.sandboxes.lean.privileged.orders import take_make
from stoker.sandboxes.lean.resolver import answering

LAUNCHES = 3
ENDS = ("answered", "raised", "exited")


def wire(data: bytes) -> None:
    """From inside a sandbox: a byte that says how many calls there are, three that cut, then the stream."""
    calls, *cuts = data[:4].ljust(4, b"\0")
    session, ear, line = listen(calls=calls % 8, is_loaded=calls >= 128)
    stream = data[4:]
    for part in pieces(stream, [cut * len(stream) // 255 for cut in cuts]):
        if not line.is_aborted and not line.is_paused:
            session.data_received(part)
        line.turn()
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
    said = Make(*MAKE_BODY.unpack_from(body))
    assert is_good(said, LAUNCHES)
    assert order.name == said.name.rstrip(b"\0")
    assert order.flags & 3 == 0, "descriptors were promised and none was there"
    assert order.flags & EGRESS or not order.egress
    again = order._replace(egress=tuple(str(target).encode() for target in order.egress))
    assert take_make(again.pack(), [], LAUNCHES) == order


def is_good(order: Make, launches: int) -> bool:
    """What a good order is, said once more and in other words."""
    name = order.name.rstrip(b"\0")
    bounds = (order.memory_bytes, order.millicpus, order.pids, order.scratch_bytes, order.scratch_inodes)
    return (
        order.launch < launches
        and order.flags < 16
        and order.flags & (HOST_NETWORK | EGRESS) != HOST_NETWORK | EGRESS
        and re.fullmatch(rb"[-_a-z0-9][-._a-z0-9]*", name) is not None
        and all(0 < bound < 1 << 62 for bound in bounds)
        and order.pids <= 1 << 22
    )


def questions(data: bytes) -> None:
    """A name server's question from inside a sandbox, and beside it what a name server might answer."""
    cut = data[0] * len(data) // 255 if data else 0
    query = answering.read(data[1:cut])
    if query is None or answering.refusal(query) is not None:
        return
    assert answering.name_of(query) == answering.name_of(query).lower()
    answer = answering.read(data[cut:]) or query
    reply = answering.filtered(query, answer, ())
    told, _ = answering.addresses(reply, MOST_ADDRESSES)
    assert all(is_reachable(address, ()) for address in told)
    for is_stream in (False, True):
        assert len(answering.on_wire(query, reply, is_stream)) <= 65535


def openings(data: bytes) -> None:
    """What a resolver that was taken over says to the helper."""
    try:
        asked = Open.unpack(data)
    except struct.error:
        assert len(data) != OPEN_BODY.size
        return
    assert len(asked.addresses) <= MOST_ADDRESSES


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {"wire": wire, "orders": orders, "questions": questions, "openings": openings}
)
