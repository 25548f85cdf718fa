"""The names and addresses of one node on the host: its links, its table, its block of 198.18.0.0/15.

Read at every start of a helper, also of one that never connects anything: so it imports nothing.
"""

from __future__ import annotations

import hashlib
import re
import socket

# The range for tests of devices (RFC 2544): no network should use it, and `egress` does not let it out.
LENGTH = 20
BLOCKS, ADDRESSES = 32, 4096
GATEWAY, FIRST = 1, 2
_FOUND = re.compile(rb"198\.(1[89])\.([0-9]+)\.([0-9]+)")


def tag_of(node_id: str) -> str:
    """Eight letters and digits for names that have little room."""
    if len(node_id) == 8 and node_id.isascii() and node_id.isalnum():
        return node_id
    return hashlib.blake2s(node_id.encode(), digest_size=4).hexdigest()


def table_of(tag: str) -> str:
    return f"stoker_{tag}"


def prefix_of(tag: str) -> str:
    """What the name of each link of the node begins with; up to three digits follow."""
    return f"sk{tag}-"


class Block:
    """A part of the range that no other node of this machine has."""

    def __init__(self, number: int, claim: socket.socket) -> None:
        self.number = number
        self._claim = claim

    def __repr__(self) -> str:
        return f"<Block {self}>"

    def __str__(self) -> str:
        return f"{self.address(0)}/{LENGTH}"

    @property
    def gateway(self) -> str:
        """The one address of the host that its sandboxes know: gateway and name server."""
        return self.address(GATEWAY)

    def address(self, number: int) -> str:
        at = self.number * ADDRESSES + number
        return f"198.{18 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"

    def close(self) -> None:
        self._claim.close()


def claim_block(tag: str) -> Block | None:
    """The first that is free here, from one that the node's name chooses; None when there is none.

    Claimed by a name that goes with the process that has it, in the network namespace it is for.
    """
    taken = _blocks_in_use()
    start = int.from_bytes(hashlib.blake2s(tag.encode(), digest_size=2).digest(), "big")
    for step in range(BLOCKS):
        number = (start + step) % BLOCKS
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0stoker-block-{number}")
        except OSError:
            claim.close()
            continue
        if number not in taken:
            return Block(number, claim)
        claim.close()
    return None


def _blocks_in_use() -> set[int]:
    """Where some route or address of this machine lies."""
    try:
        with open("/proc/net/fib_trie", "rb") as file:
            said = file.read()
    except OSError:
        return set()
    return {
        (int(first) - 18 << 16 | int(second) << 8 | int(third)) // ADDRESSES
        for first, second, third in _FOUND.findall(said)
    }
