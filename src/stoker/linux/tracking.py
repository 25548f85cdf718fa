"""Connections as the kernel keeps track of them: forgets those of an address whose owner has gone.

They outlive him by minutes, some by days. Whoever got his address next would receive what is still sent
to him, and could go on with a connection that was allowed to him alone.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

NETLINK_NETFILTER, CONNTRACK = 12, 1
GET, DELETE = CONNTRACK << 8 | 1, CONNTRACK << 8 | 2
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE = 2, 3
NESTED = 0x3FFF
TUPLE_ORIG, CTA_ID, CTA_ZONE = 1, 12, 18
# Of the first attribute: the head of the tuple, of its addresses, of the source; then that itself.
SOURCE = slice(12, 16)

_HEAD = struct.Struct("=IHHII")
_FAMILY = bytes([socket.AF_INET, 0, 0, 0])


def forget_connections(sources: Collection[IPv4Address]) -> int:
    """Forget every connection that one of these addresses began; how many there were. Raises `OSError`.

    Reads the whole table once, for which the kernel needs some 10 to 40 ms however little is in it.
    """
    wanted = {source.packed for source in sources}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as control:
        control.send(_message(GET, REQUEST | DUMP, b""))
        named = [_name(entry) for entry in _entries(control) if entry[SOURCE] in wanted]
        for name in named:
            control.send(_message(DELETE, REQUEST | ACK, name))
            _check(control.recv(4096))
    return len(named)


def _entries(control: socket.socket) -> Iterator[bytes]:
    """The attributes of each."""
    while True:
        answer = control.recv(1 << 17)
        while answer:
            length, kind, _, _, _ = _HEAD.unpack_from(answer)
            if kind == DONE:
                return
            if kind == ERROR:
                _check(answer)
            yield answer[_HEAD.size + len(_FAMILY) : length]
            answer = answer[length + -length % 4 :]


def _name(attributes: bytes) -> bytes:
    """Of an entry's attributes those by which it is named."""
    named = b""
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        whole = length + -length % 4
        if kind & NESTED in (TUPLE_ORIG, CTA_ID, CTA_ZONE):
            named += attributes[:whole]
        attributes = attributes[whole:]
    return named


def _check(answer: bytes) -> None:
    (number,) = struct.unpack_from("=i", answer, _HEAD.size)
    if number not in (0, -errno.ENOENT):  # it may have ended by itself meanwhile
        raise OSError(-number, f"forgetting connections: {os.strerror(-number)}")


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEAD.pack(_HEAD.size + len(_FAMILY) + len(body), kind, flags, 1, 0) + _FAMILY + body
