"""What a call writes: its first bytes kept, the rest counted."""

from __future__ import annotations

from stoker.types import Logs


class LogKeeper:
    """Keeps the first bytes of each stream and counts the rest."""

    __slots__ = ("_cap", "_parts", "_totals")

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._parts: tuple[list[bytes], list[bytes]] = ([], [])
        self._totals = [0, 0]

    def add(self, stream: int, data: bytes) -> int:
        """Returns how many bytes the stream has had so far."""
        index = stream != 1
        room = self._cap - self._totals[index]
        if room > 0:
            self._parts[index].append(data[:room])
        self._totals[index] += len(data)
        return self._totals[index]

    def kept(self) -> Logs:
        out, err = (b"".join(parts) for parts in self._parts)
        return Logs(out, err, self._totals[0] > self._cap, self._totals[1] > self._cap)
