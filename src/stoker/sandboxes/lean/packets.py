"""What the node, the helper and the zygotes say to each other: packets of fixed shape, one for a message.

Each travels whole over a SOCK_SEQPACKET socketpair, with the descriptors it speaks of. The first byte
is its kind, the next eight the number of the sandbox it is about (WANT and SPARES: of the kind of spares,
in the node's counting; RENEWED and UNRENEWED: of the launch; RENEW and RELEASE: of the lineage). The helper
believes the node nothing but what these shapes can say; it checks each field (`privileged.orders`).

    node   -> helper   MAKE, DESTROY, WANT, RENEW, RELEASE
    helper -> node     READY, MADE, KILLED, FAILED, ENDED, SPARES (also in answer to each WANT);
                       AGAIN: as FAILED, but it may be asked for once more; RENEWED or UNRENEWED: in answer
                       to each RENEW of a newest lineage; its guardian: LOST
    helper -> zygote   SETUP (once), FORK
    zygote -> helper   UP (once), FORKED, REFUSED, BROKEN
    helper -> sandbox  on its private socket: GO
    sandbox -> helper  there: MOUNTED when its root stands, RUNNING with its scratch space, then STATUS with
                       a wait status; or TROUBLE with a text

Read by every Python from 3.8 on: see `stoker.linux.syscalls`.
"""

from __future__ import annotations

import _socket
import struct

# Each by its own name, as in `inside.walls`; numbers, for the names of `socket` are those of an enumeration.
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET
from array import array
from typing import Any, NamedTuple

MAKE, DESTROY, WANT, RENEW, RELEASE = 1, 2, 3, 4, 5
READY, MADE, FAILED, ENDED, LOST, KILLED, SPARES, AGAIN = 17, 18, 19, 20, 21, 22, 23, 24
RENEWED, UNRENEWED = 25, 26
SETUP, FORK = 33, 34
UP, FORKED, REFUSED, BROKEN = 49, 50, 51, 52
GO, MOUNTED, RUNNING, STATUS, TROUBLE = b"G", b"M", b"R", b"S", b"T"

HAS_CODE, HAS_WORKSPACE, HOST_NETWORK, EGRESS = 1, 2, 4, 8

HEAD = struct.Struct("=BQ")
WAIT_STATUS = struct.Struct("=i")
MAKE_BODY = struct.Struct("=HHQIIQI64sQ")
FORK_BODY = struct.Struct("=QIQIBB")
WANT_BODY = struct.Struct("=HQ")  # how many spares; this word's number; then what they are like, as in MAKE
OPENING = struct.Struct("=H")  # so many bytes; after MAKE_BODY, and then the bytes
TARGET_BODY = struct.Struct("=264s")  # one of `stoker.egress`, as text; after the opening, for EGRESS
ENDED_BODY = struct.Struct("=iIIqqBqq")
# Its first process; as in SPARES, what is left of its kind and what one took; which counters are among the
# descriptors; its lineage; then, to the end, the name of its cgroup.
MADE_BODY = struct.Struct("=iHIBQ")
KILLED_BODY = struct.Struct("=I")  # so many of its processes have been ended for memory so far
SPARES_BODY = struct.Struct("=HIQ")  # how many there are; microseconds that one took, or 0; the last WANT
RENEWED_BODY = struct.Struct("=QQ")  # the lineage that was the newest before, and the one that is
FORKED_BODY = struct.Struct("=i")

MAX_PACKET = 64 * 1024  # a SETUP with its two filters has about 5 kB
MAX_DESCRIPTORS = 16
SPACE = CMSG_SPACE(4 * MAX_DESCRIPTORS)
MAX_TEXT = 2000
MAX_OPENING = 8 * 1024  # far less than a new socket takes; a LOAD has 200 bytes and an environment
NOT_COUNTED = -1
SPARE = b"Spare-"  # how the names of their cgroups begin; no sandbox of the node's may have a capital in its
KINDS = 16  # of spares at a time, numbered from 0
MOST_SPARES = 1024  # of a kind

# Each life of the helper has a range of numbers of its own, and LOST tells the node where the next begins.
# So an order that was for a helper that died is none for the one that finds it in the socket.
NUMBERS_OF_A_LIFE = 1 << 40


class Make(NamedTuple):
    """One sandbox as the node asks for it. Descriptors: the code folder and the workspace, as `flags` say."""

    launch: int
    flags: int
    memory_bytes: int
    millicpus: int
    pids: int
    scratch_bytes: int
    scratch_inodes: int
    name: bytes
    lineage: int = 0
    """Forked from the zygote that so numbered ones were forked from, if it is still there; else, and for 0,
    from the newest."""
    opening: bytes = b""
    """What is written to its channel for the node, as soon as its code is there; at most MAX_OPENING."""
    egress: tuple[Any, ...] = ()
    """The targets that EGRESS is narrowed to: as texts where it is packed, read where it has been checked."""

    def pack(self) -> bytes:
        head = MAKE_BODY.pack(*self[:-2]) + OPENING.pack(len(self.opening))
        return b"".join((head, self.opening, *(TARGET_BODY.pack(text) for text in self.egress)))


class Fork(NamedTuple):
    """One sandbox as the helper orders it from a zygote.

    Descriptors: channel, stdout, stderr, permits, private socket, network namespace, user namespace, then
    those to join cgroups by.
    """

    scratch_bytes: int
    scratch_inodes: int
    file_bytes: int
    processes: int
    """The most processes of its user outside, where he belongs to the sandbox alone; 0: no bound."""
    is_version_2: int
    keeps_network: int
    """It stays in the zygote's network, which is the host's."""


class Ended(NamedTuple):
    """How a sandbox ended. `status` is the wait status of the program inside, -1 if it was never told."""

    status: int
    oom_kills: int
    forks_refused: int
    cpu_ns: int
    memory_peak_bytes: int
    destroyed: int
    network_in_bytes: int
    network_out_bytes: int


def pack(kind: int, number: int, body: bytes = b"") -> bytes:
    return HEAD.pack(kind, number) + body


def unpack(packet: bytes) -> tuple[int, int, bytes]:
    """Kind, number and body. Raises `struct.error` for what is too short."""
    kind, number = HEAD.unpack_from(packet)
    return kind, number, packet[HEAD.size :]


def pack_parts(parts: list[bytes]) -> bytes:
    """Texts of any length in one body, for SETUP."""
    return b"".join(struct.pack("=I", len(part)) + part for part in parts)


def unpack_parts(body: bytes) -> list[bytes]:
    parts = []
    while body:
        (length,) = struct.unpack_from("=I", body)
        parts.append(body[4 : 4 + length])
        body = body[4 + length :]
    return parts


def send(link: _socket.socket, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send one packet whole. Raises what `sendmsg` raises."""
    rights = [(SOL_SOCKET, SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    link.sendmsg([packet], rights)


def receive(link: _socket.socket, most: int = MAX_PACKET) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, which are closed on exec; an empty packet is the end."""
    try:
        packet, rights, _, _ = link.recvmsg(most, SPACE, MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # Told once, before what the other end had said: it ended without reading everything from us.
        packet, rights, _, _ = link.recvmsg(most, SPACE, MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, data in rights:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return packet, list(descriptors)
