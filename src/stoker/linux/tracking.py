"""Connections as the kernel keeps track of them: forgets those of an address whose owner has gone.

They outlive him by minutes, some by days. Whoever got his address next would receive what is still sent
to him, and could go on with a connection that was allowed to him alone.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

NETLINK_NETFILTER, CONNTRACK = 12, 1
GET, DELETE = CONNTRACK << 8 | 1, CONNTRACK << 8 | 2
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE = 2, 3
NESTED = 0x8000
TUPLE_ORIG, TUPLE_IP, IP_V4_SRC, CTA_ID, CTA_ZONE, FILTER, FILTER_ORIG_FLAGS = 1, 1, 1, 12, 18, 25, 1
BY_SOURCE = 1

_HEAD = struct.Struct("=IHHII")
_FAMILY = bytes([socket.AF_INET, 0, 0, 0])


def forget_connections(source: IPv4Address) -> int:
    """Forget every connection that this address began; how many there were. Raises `OSError`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as control:
        tuples = list(_list(control, source))
        for one in tuples:
            control.send(_message(DELETE, REQUEST | ACK, one))
            _check(control.recv(4096))
    return len(tuples)


def _list(control: socket.socket, source: IPv4Address) -> Iterator[bytes]:
    address = _nested(TUPLE_IP, _attribute(IP_V4_SRC, source.packed))
    wanted = _nested(FILTER, _attribute(FILTER_ORIG_FLAGS, struct.pack("=I", BY_SOURCE)))
    control.send(_message(GET, REQUEST | DUMP, _nested(TUPLE_ORIG, address) + wanted))
    while True:
        answer = control.recv(1 << 17)
        while answer:
            length, kind, _, _, _ = _HEAD.unpack_from(answer)
            if kind == DONE:
                return
            if kind == ERROR:
                _check(answer)
            yield _name(answer[_HEAD.size + len(_FAMILY) : length])
            answer = answer[length + -length % 4 :]


def _name(attributes: bytes) -> bytes:
    """Of an entry's attributes those by which it is named."""
    named = b""
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        whole = length + -length % 4
        if kind & ~NESTED in (TUPLE_ORIG, CTA_ID, CTA_ZONE):
            named += attributes[:whole]
        attributes = attributes[whole:]
    return named


def _check(answer: bytes) -> None:
    (number,) = struct.unpack_from("=i", answer, _HEAD.size)
    if number not in (0, -errno.ENOENT):  # it may have ended by itself meanwhile
        raise OSError(-number, f"forgetting connections: {os.strerror(-number)}")


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEAD.pack(_HEAD.size + len(_FAMILY) + len(body), kind, flags, 1, 0) + _FAMILY + body


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, value)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
