"""Orders spares of the helper: of each kind that is asked for, as many as `demand` says and memory allows.

Knows no clock and no I/O: time is an argument, and what is to be told the helper goes through `tell`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from stoker.sandboxes.contract import Launch
from stoker.sandboxes.lean.demand import Demand, share
from stoker.sandboxes.lean.packets import EGRESS, HAS_CODE, KINDS, Make

FORKED_S, EXECUTED_S = 0.004, 0.06
"""What making one takes, until it was measured."""
FORKED_MB, EXECUTED_MB = 4, 16
"""What one holds while it waits, kernel memory included: a fork of a small Python, and a whole Node.js."""
PAUSE_S = 0.02
"""Between two reviews where calls come one after the other: one costs as much as a call."""
NOBODY = b"spare"
UNBOUNDED_MB = 2**62

Tell = Callable[[int, int, Make], int]
"""There are to be so many of the kind with that number, which are like this; returns the word's number."""


class Kind:
    """Sandboxes that one spare could become."""

    def __init__(self, number: int, pattern: Make, is_forked: bool, makers: int) -> None:
        self.number = number
        self.pattern = pattern
        self.demand = Demand(FORKED_S if is_forked else EXECUTED_S, makers)
        self.each_mb = FORKED_MB if is_forked else EXECUTED_MB
        self.asked_at = 0.0
        self.wanted = -1
        """As the helper was told; negative: it was not."""
        self.words: deque[tuple[int, int]] = deque()
        """Number and `wanted` of the word that the helper acts by, then of those it has not answered yet."""
        self.held = 0
        """As it has told us."""

    def __repr__(self) -> str:
        return f"<Kind {self.number}, {self.held} of {self.wanted} spares>"

    @property
    def counted(self) -> int:
        """How many there may be at any moment: one that was begun is told of when it is made."""
        return max(self.held, 0, *(wanted for _, wanted in self.words))

    def heard_of(self, word: int) -> None:
        """The helper acts by that word."""
        while len(self.words) > 1 and self.words[1][0] <= word:
            self.words.popleft()


class Spares:
    """All kinds, at most `KINDS` of them: the one not asked for the longest makes room for a new one."""

    def __init__(self, launches: Sequence[Launch], least: int, makers: int, tell: Tell) -> None:
        self._launches = launches
        self._least = least
        self._makers = makers
        self._tell = tell
        self._kinds: dict[tuple[int, ...], Kind] = {}
        self._room_mb = UNBOUNDED_MB
        self._said = (0, 0)
        self._reviewed_at = -PAUSE_S
        self.on_change: Callable[[int, int], None] = lambda number, memory_mb: None
        """Told how many there may be now, and the memory that they may hold."""

    def __repr__(self) -> str:
        return f"<Spares {list(self._kinds.values())}>"

    def asked(self, order: Make, now: float) -> Kind | None:
        """Somebody asks for a sandbox; of which kind, if there may be spares of it."""
        kind = self._kind_of(order)
        if kind is not None:
            kind.demand.came(now)
            kind.asked_at = now
            if kind.wanted < 0 or now - self._reviewed_at >= PAUSE_S:
                self.review(now)
        return kind

    def expect(self, order: Make, now: float) -> None:
        """Somebody may ask for one."""
        kind = self._kind_of(order)
        if kind is not None:
            kind.asked_at = now
            self.review(now)

    def _kind_of(self, order: Make) -> Kind | None:
        if not self._least or order.flags & ~(HAS_CODE | EGRESS):
            return None
        flags = order.flags & EGRESS
        key = (order.launch, flags, order.pids, order.scratch_bytes, order.scratch_inodes)
        kind = self._kinds.get(key)
        number = len(self._kinds) if kind is None else kind.number
        if number == KINDS:
            number = self._take_number()
        if kind is None and number >= 0:
            is_forked = self._launches[order.launch].fork is not None
            pattern = order._replace(flags=flags, name=NOBODY, opening=b"", egress=())
            kind = self._kinds[key] = Kind(number, pattern, is_forked, self._makers)
        return kind

    def _take_number(self) -> int:
        """That of the kind not asked for the longest; negative as long as there may be spares of it."""
        key = min(self._kinds, key=lambda key: self._kinds[key].asked_at)
        oldest = self._kinds[key]
        self._set(oldest, 0)
        if oldest.counted:
            return -1
        return self._kinds.pop(key).number

    def review(self, now: float) -> None:
        """Tell the helper what has changed by now."""
        self._reviewed_at = now
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.asked_at)
        wanted, seen = [], set()
        for kind in kinds:
            what = (kind.pattern.launch, kind.pattern.flags)
            # Of each launch the kind asked for last is never quite without.
            wanted.append(max(kind.demand.wanted(now), 0 if what in seen else self._least))
            seen.add(what)
        shared = dict(zip(kinds, share(wanted, [kind.each_mb for kind in kinds], self._room_mb), strict=True))
        for kind, number in shared.items():
            if number < kind.wanted:
                self._set(kind, number)
        for kind, number in shared.items():
            # What was just lowered still holds its memory: the rest of it is had at the next look.
            has_room_for = (self._room_mb - self.total()[1]) // kind.each_mb
            self._set(kind, min(number, kind.counted + max(0, has_room_for)))
        self._say_if_changed()

    def _set(self, kind: Kind, number: int) -> None:
        if number != kind.wanted:
            kind.wanted = number
            kind.words.append((self._tell(kind.number, number, kind.pattern), number))

    def bound(self, memory_mb: int, now: float) -> None:
        """They may hold no more than that, all together."""
        self._room_mb = memory_mb
        self.review(now)

    # What the helper says

    def given(self, kind: Kind, left: int, took_s: float) -> None:
        """One of them has become what somebody asked for; so many are left, the last made in so long."""
        kind.held = left
        if took_s:
            kind.demand.took(took_s)
        self._say_if_changed()

    def heard(self, number: int, held: int, took_s: float, word: int) -> None:
        """So many there are of a kind since that word; making one took so long, or 0: none was made."""
        for kind in self._kinds.values():
            if kind.number == number:
                kind.heard_of(word)
                kind.held = held
                if took_s:
                    kind.demand.took(took_s)
        self._say_if_changed()

    def lost(self) -> None:
        """There are none any more, and a new helper, which knows nothing yet."""
        for kind in self._kinds.values():
            kind.held, kind.wanted = 0, -1
            kind.words.clear()
        self._say_if_changed()

    # What they hold

    def _say_if_changed(self) -> None:
        total = self.total()
        if total != self._said:
            self._said = total
            self.on_change(*total)

    def total(self) -> tuple[int, int]:
        """How many there may be at this moment, and the megabytes that they may hold."""
        kinds = self._kinds.values()
        return sum(kind.counted for kind in kinds), sum(kind.counted * kind.each_mb for kind in kinds)
