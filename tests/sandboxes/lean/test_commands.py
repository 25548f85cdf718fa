"""The helper believes the node nothing but the shape of a packet, and lives through every other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import leaks
from sandboxes.lean.guests import FORKED, hello, only_root, run
from stoker.linux import privileges
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean import Backend
from stoker.sandboxes.lean.packets import (
    DESTROY,
    EGRESS,
    FAILED,
    HAS_CODE,
    HAS_WORKSPACE,
    HEAD,
    HOST_NETWORK,
    MAKE,
    MAKE_BODY,
    MAX_OPENING,
    OPENING,
    READY,
    RENEW,
    Make,
    pack,
    receive,
    send,
    unpack,
)
from stoker.sandboxes.lean.privileged.orders import take_make
from stoker.types import MEBIBYTE, Limits

GOOD = Make(0, 0, 64 * MEBIBYTE, 1000, 16, MEBIBYTE, 100, b"guest")


@pytest.fixture
def link(unopened: Backend, node_id: str) -> Iterator[socket.socket]:
    """The node's end of the socket to a helper that is ready."""
    unopened.prepare()
    end = unopened._end
    assert end is not None
    end.settimeout(30)
    assert unpack(receive(end)[0])[0] == READY
    yield end
    asyncio.run(unopened.close())
    assert leaks.left([node_id]) == []


packets = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda kind, number, body: HEAD.pack(kind, number) + body,
        st.integers(0, 255),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=MAKE_BODY.size + 5),
    ),
    st.builds(
        lambda number, *fields: pack(MAKE, number, MAKE_BODY.pack(*fields)),
        st.integers(0, 2**64 - 1),
        st.integers(5, 2**16 - 1),  # no launch of ours: nothing is to be made here
        st.integers(0, 2**16 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=64),
        st.integers(0, 2**64 - 1),
    ),
).filter(
    lambda packet: packet[:1] != bytes([RENEW])
)  # has tests of its own: what it starts goes on for a while


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=packets.filter(bool), kinds=st.lists(st.sampled_from(["/", "/dev/null", "socket"]), max_size=5))
def test_the_helper_lives_through_every_packet(link: socket.socket, packet: bytes, kinds: list[str]) -> None:
    descriptors = tuple(
        socket.socket(socket.AF_UNIX).detach() if kind == "socket" else os.open(kind, os.O_RDONLY)
        for kind in kinds
    )
    send(link, packet, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    # Something wrong in a way of its own: its answer is the proof that the one before did no harm.
    send(link, pack(MAKE, 4242, b"short"))
    while True:
        kind, number, body = unpack(receive(link)[0])
        assert kind == FAILED
        if number == 4242 and b"another shape" in body:
            break


@pytest.mark.parametrize(
    ("change", "descriptors", "complaint"),
    [
        ({"launch": 1}, (), "launch 1 of 1"),
        ({"flags": 16}, (), "flags 0x10"),
        ({"flags": HOST_NETWORK | EGRESS}, (), "flags 0xc"),
        ({"egress": (b"example.org",)}, (), "1 targets for flags 0x0"),
        ({"flags": EGRESS, "egress": (b"a",) * 65}, (), "65 targets"),
        ({"flags": EGRESS, "egress": (b"Example.org",)}, (), "one form"),
        ({"flags": EGRESS, "egress": (b"127.0.0.1",)}, (), "nothing opens"),
        ({"flags": EGRESS, "egress": (b'"; flush ruleset',)}, (), "a name"),
        ({"flags": EGRESS, "egress": (b"\xff",)}, (), "ascii"),
        ({"flags": HAS_CODE}, (), "0 descriptors for flags 0x1"),
        ({}, ("/",), "1 descriptors for flags 0x0"),
        ({"flags": HAS_CODE | HAS_WORKSPACE}, ("/",), "1 descriptors for flags 0x3"),
        ({"flags": HAS_CODE}, ("/dev/null",), "not a folder"),
        ({"name": b"../x"}, (), "no name"),
        ({"name": b"a\0b"}, (), "no name"),
        ({"name": b""}, (), "no name"),
        ({"memory_bytes": 0}, (), "bounds"),
        ({"memory_bytes": 2**63}, (), "bounds"),
        ({"pids": 2**23}, (), "bounds"),
        ({"scratch_inodes": 0}, (), "bounds"),
        ({"opening": bytes(MAX_OPENING + 1)}, (), "an opening of 8193 bytes"),
    ],
)
def test_every_field_of_an_order_is_checked(
    change: dict[str, int], descriptors: tuple[str, ...], complaint: str
) -> None:
    opened = [os.open(path, os.O_PATH) for path in descriptors]
    try:
        with pytest.raises(ValueError, match=complaint):
            take_make(GOOD._replace(**change).pack(), opened, 1)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_a_good_order_is_taken_as_it_is() -> None:
    assert take_make(GOOD.pack(), [], 1) == GOOD
    narrowed = GOOD._replace(
        flags=EGRESS, opening=b"\0any bytes\xff", egress=(b"example.org:443", b"203.0.113.0/24")
    )
    taken = take_make(narrowed.pack(), [], 1)
    assert list(map(str, taken.egress)) == ["example.org:443", "203.0.113.0/24"]
    assert taken.opening == b"\0any bytes\xff"


@pytest.mark.parametrize(
    "rest", [b"", b"\1", OPENING.pack(1), OPENING.pack(3) + b"ab", OPENING.pack(0) + b"ab"]
)
def test_an_opening_that_is_not_as_long_as_it_says_is_no_order(rest: bytes) -> None:
    whole = GOOD.pack()
    with pytest.raises(ValueError, match="another shape"):
        take_make(whole[: len(whole) - OPENING.size] + rest, [], 1)


async def test_ending_what_was_never_made_ends_nothing(lean: Backend) -> None:
    sandbox = await lean.create(SandboxSpec(id="guest", launch=FORKED, limits=Limits()))
    await hello(sandbox)
    assert lean._link is not None
    for number in (0, 77, 2**63 + 1, 2**64 - 1):
        lean._link.send(pack(DESTROY, number))
    assert await run(sandbox, "answer = 1") == 1
    await sandbox.destroy()


@only_root
@pytest.mark.parametrize("folder", ["/", "/etc", "/proc"])
def test_a_node_that_was_taken_over_cannot_have_what_is_not_its_own_written(
    unopened: Backend, folder: str, nothing_left: None
) -> None:
    """It can hold a descriptor of any folder that it can see; only its own may be a workspace."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, _ask_for_workspace(unopened, folder))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        kind, _, body = unpack(said.read())
    os.waitpid(child, 0)
    assert (kind, body) == (FAILED, b"[Errno 1] a workspace of user 0, but the node is user 64321")


def _ask_for_workspace(backend: Backend, folder: str) -> bytes:
    """As a node does that has given root up; the helper's answer."""
    backend.prepare()
    end = backend._end
    assert end is not None
    end.settimeout(30)
    receive(end)
    privileges.give_up("", 64_321, [])
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    send(end, pack(MAKE, 1, GOOD._replace(flags=HAS_WORKSPACE).pack()), (descriptor,))
    return receive(end)[0]
