"""The way out, made when the first sandbox needs it: most nodes never do, and import none of it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from stoker.linux.nftables import Ruleset, is_available
from stoker.sandboxes.lean.egress.block import Block, prefix_of, table_of

if TYPE_CHECKING:
    from stoker.egress import Target
    from stoker.sandboxes.lean.egress.clerk import Watch
    from stoker.sandboxes.lean.egress.network import Connection, Egress


class Way:
    """One node's. HOLDS: whoever calls is root of the machine, and has one thread."""

    def __init__(self, tag: str, block: Block | None, words: tuple[Any, ...], watch: Watch) -> None:
        self._tag = tag
        self._block = block
        self._words = words
        self._watch = watch
        self._egress: Egress | None = None

    def __repr__(self) -> str:
        return f"<Way {self._egress or 'that nobody has needed yet'}>"

    @property
    def pids(self) -> set[int]:
        """The processes that it has started."""
        return self._egress.pids if self._egress else set()

    def connect(self, namespace: int) -> Connection:
        """Let a network namespace out. Raises `OSError`."""
        if self._egress is None:
            from stoker.sandboxes.lean.egress.network import Egress, Words

            if self._block is None:
                raise OSError("no block of 198.18.0.0/15 is free on this machine")
            self._egress = Egress(self._tag, self._block, Words(*self._words), self._watch)
        return self._egress.connect(namespace)

    def narrow(self, connection: Connection, targets: tuple[Target, ...]) -> None:
        """From here on nowhere but to `targets`, unless there are none. Raises `OSError`."""
        assert self._egress is not None
        self._egress.narrow(connection, targets)

    def disconnect(self, connection: Connection) -> None:
        """HOLDS: no process of it is left, and its namespace is given up next."""
        assert self._egress is not None
        self._egress.disconnect(connection)

    def close(self) -> None:
        """Leave the host as it was."""
        if self._egress is not None:
            self._egress.close()
            self._egress = None


def sweep(tag: str) -> None:
    """Remove what an earlier life of this node has left on the host. Raises `OSError`."""
    has_links = any(name.startswith(prefix_of(tag)) for _, name in socket.if_nameindex())
    if has_links or _has_table(tag):
        from stoker.sandboxes.lean.egress import network

        network.sweep(tag)


def _has_table(tag: str) -> bool:
    if not is_available():
        return False
    ruleset = Ruleset()
    try:
        ruleset.run(f"list table inet {table_of(tag)}\n")
    except OSError:
        return False
    finally:
        ruleset.close()
    return True
