"""What the helper and the resolver say to each other: packets of fixed shape, both ways.

    helper   -> resolver   SETTLE (once), CLIENT, LEAVE, OPENED
    resolver -> helper     READY, OPEN

The resolver parses strangers' bytes: the helper believes it nothing but that it asks.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

SETTLE, CLIENT, LEAVE, OPENED = 1, 2, 3, 4
READY, OPEN = 17, 18

KIND = struct.Struct("=B")
CLIENT_HEAD = struct.Struct("=BIIB")
LEAVE_BODY = struct.Struct("=BI")
OPENED_BODY = struct.Struct("=BIB")
OPEN_BODY = struct.Struct("=BIIIIQB16I")
TARGET = struct.Struct("=264s")
MOST_ADDRESSES = 16
MAX_PACKET = 64 * 1024


class Open(NamedTuple):
    """Please let `client` connect to these addresses, as the targets whose bits are set in `targets` say."""

    question: int
    client: int
    serial: int
    """Which life of that address is meant."""
    span_s: int
    targets: int
    addresses: tuple[int, ...]

    def pack(self) -> bytes:
        padded = (*self.addresses, *[0] * (MOST_ADDRESSES - len(self.addresses)))
        return OPEN_BODY.pack(OPEN, *self[:5], len(self.addresses), *padded)

    @classmethod
    def unpack(cls, packet: bytes) -> Open:
        """Raises `struct.error` for another shape."""
        _, question, client, serial, span_s, targets, count, *addresses = OPEN_BODY.unpack(packet)
        return cls(question, client, serial, span_s, targets, tuple(addresses[:count]))


def pack_client(address: int, serial: int, targets: tuple[str, ...]) -> bytes:
    head = CLIENT_HEAD.pack(CLIENT, address, serial, len(targets))
    return head + b"".join(TARGET.pack(target.encode()) for target in targets)


def unpack_client(packet: bytes) -> tuple[int, int, tuple[str, ...]]:
    """Address, serial, targets."""
    _, address, serial, _ = CLIENT_HEAD.unpack_from(packet)
    return address, serial, unpack_targets(packet[CLIENT_HEAD.size :])


def unpack_targets(body: bytes) -> tuple[str, ...]:
    """Raises `struct.error` and `UnicodeDecodeError`."""
    return tuple(text.rstrip(b"\0").decode("ascii") for (text,) in TARGET.iter_unpack(body))
