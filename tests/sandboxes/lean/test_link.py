"""The node's end of the conversation with the helper, over a socket of the kernel's."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.sandboxes.lean.link import Link
from stoker.sandboxes.lean.packets import pack, receive, unpack

EACH = 16
"""Descriptors of one packet: as many as are received at once."""


class Nobody:
    """Hears nothing."""

    def heard(self, kind: int, number: int, body: bytes, descriptors: list[int]) -> None: ...
    def lost(self) -> None: ...


@contextmanager
def ordinary_user_with_few_descriptors(number: int) -> Iterator[None]:
    """Who is not root may have no more of them under way than open."""
    user, bounds = os.geteuid(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, bounds[1]))
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        resource.setrlimit(resource.RLIMIT_NOFILE, bounds)


async def test_what_would_be_too_many_descriptors_under_way_is_sent_when_some_have_arrived() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    link, heard = Link(ours, Nobody()), []
    most_open = len(os.listdir("/proc/self/fd")) + 6 * EACH
    packets = range(most_open // EACH + 3)
    with ordinary_user_with_few_descriptors(most_open), open("/dev/null") as null:
        for number in packets:
            link.send(pack(1, number), (null.fileno(),) * EACH)
        async with asyncio.timeout(10):
            while len(heard) < len(packets):
                try:
                    packet, descriptors = receive(theirs)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                heard.append((unpack(packet)[1], len(descriptors)))
                for descriptor in descriptors:
                    os.close(descriptor)
    assert heard == [(number, EACH) for number in packets]
    link.close()
    theirs.close()
