"""What the node may order: each field of its packets is looked at before anything is done about it."""

from __future__ import annotations

import os
import re
import stat
import struct
from typing import TYPE_CHECKING

from stoker.sandboxes.lean.packets import (
    EGRESS,
    HAS_CODE,
    HAS_WORKSPACE,
    HOST_NETWORK,
    KINDS,
    MAKE_BODY,
    MAX_OPENING,
    MOST_SPARES,
    OPENING,
    TARGET_BODY,
    WANT_BODY,
    Make,
)

if TYPE_CHECKING:
    from stoker.egress import Target

NAME = re.compile(rb"[a-z0-9_-][a-z0-9_.-]{0,63}")


def take_make(body: bytes, descriptors: list[int], launches: int) -> Make:
    """The order in a packet, every field checked. Raises `ValueError` with what is wrong."""
    try:
        order = Make(*MAKE_BODY.unpack_from(body))
        opening, rest = split_opening(body)
        targets = tuple(text for (text,) in TARGET_BODY.iter_unpack(rest))
    except struct.error as error:
        raise ValueError(f"a MAKE packet of another shape: {error}") from None
    order = order._replace(name=order.name.rstrip(b"\0"), opening=opening)
    if order.launch >= launches:
        raise ValueError(f"launch {order.launch} of {launches}")
    if not NAME.fullmatch(order.name):
        raise ValueError(f"{order.name!r} is no name for a sandbox")
    networks = order.flags & (HOST_NETWORK | EGRESS)
    if order.flags & ~(HAS_CODE | HAS_WORKSPACE | networks) or networks == HOST_NETWORK | EGRESS:
        raise ValueError(f"flags {order.flags:#x}")
    bounds = (order.memory_bytes, order.millicpus, order.pids, order.scratch_bytes, order.scratch_inodes)
    if not all(0 < bound < 2**62 for bound in bounds) or order.pids > 2**22:
        raise ValueError(f"bounds {bounds}")
    if len(descriptors) != bool(order.flags & HAS_CODE) + bool(order.flags & HAS_WORKSPACE):
        raise ValueError(f"{len(descriptors)} descriptors for flags {order.flags:#x}")
    if not all(stat.S_ISDIR(os.fstat(descriptor).st_mode) for descriptor in descriptors):
        raise ValueError("a descriptor that is not a folder's")
    return order._replace(egress=take_targets(targets, order.flags))


def take_want(kind: int, body: bytes, descriptors: list[int], launches: int) -> tuple[int, int, Make]:
    """How many spares of a kind, the word's number, what they are like. Raises `ValueError`."""
    if len(body) < WANT_BODY.size or kind >= KINDS:
        raise ValueError(f"a WANT packet of {len(body)} bytes for kind {kind}")
    number, word = WANT_BODY.unpack_from(body)
    pattern = take_make(body[WANT_BODY.size :], descriptors, launches)
    is_somebodys = pattern.opening or pattern.egress or pattern.lineage
    if number > MOST_SPARES or pattern.flags & ~EGRESS or is_somebodys:
        raise ValueError(f"{number} spares with flags {pattern.flags:#x}")
    return number, word, pattern


def split_opening(body: bytes) -> tuple[bytes, bytes]:
    """The opening, which is looked at no further, and what comes after it. Raises `struct.error`."""
    (length,) = OPENING.unpack_from(body, MAKE_BODY.size)
    start = MAKE_BODY.size + OPENING.size
    opening = body[start : start + length]
    if length > MAX_OPENING or len(opening) < length:
        raise struct.error(f"an opening of {length} bytes, {len(opening)} of them there")
    return opening, body[start + length :]


def take_targets(texts: tuple[bytes, ...], flags: int) -> tuple[Target, ...]:
    """What egress is narrowed to. Raises `ValueError`."""
    if not texts:
        return ()
    from stoker.egress import MOST_TARGETS, read_target

    if not flags & EGRESS or len(texts) > MOST_TARGETS:
        raise ValueError(f"{len(texts)} targets for flags {flags:#x}")
    said = [text.rstrip(b"\0").decode("ascii") for text in texts]
    targets = tuple(map(read_target, said))
    if list(map(str, targets)) != said:
        raise ValueError(f"targets {said} are not in the one form that they have")
    return targets
