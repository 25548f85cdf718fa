"""Which functions have a zygote: what one loaded sandbox became, kept for those that start later.

Theory. A zygote is memory that saves the time of an import whenever a sandbox of its function starts. It is
made after a function was loaded well, if that took long enough, in room that nobody needs; it counts in
committed memory, and it goes like an idle sandbox does, by the same rank, when room is needed. As long as
sandboxes live that started from it they hold its memory, so it cannot go before them. Where all zygotes
together may have no more memory, those that nobody uses give way to one that saves more.

Between the interpreter and a function's own zygote there may be one of its packages (`sharing`), for all
functions that have the same: what starts from it imports the rest. Who has little left to import then needs
none of his own, and several have one memory.

Making one can fail by chance: a sandbox did not come up in time, or was lost. That is tried again, each time
after a longer pause, and not for ever, for what fails by itself looks the same from outside.

What is frozen can be continued only in sandboxes of its lineage: forked from the same start of the
interpreter. When that has aged (a backend starts interpreters anew, so that no secret of theirs is of use for
long), each zygote of it is made once more and serves until the new one is there; then it is released.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from stoker.pool.events import (
    DropZygote,
    Flaw,
    MakeZygote,
    ReleaseLineage,
    SandboxLoaded,
    ZygoteFailed,
    ZygoteReady,
)
from stoker.pool.groups import Entry, Group, Lately, Phase
from stoker.pool.keeping import FORGET_S, victims
from stoker.pool.sharing import Member, common

WORTH_S = 0.05
"""An import that takes less is done again: becoming a zygote takes some milliseconds too."""
MAKING_TIMES = 2
"""While one is made there is the sandbox that loads, and beside it what it is copied to."""
AGAIN_S, LONGER, MOST_ATTEMPTS = 10.0, 4, 4
"""After an attempt that the machine may have spoilt comes a pause, each so many times the one before."""
RENEW_AGAIN_S = 60.0
"""After an attempt that failed while an older one serves."""
CHOOSE_AGAIN_S = 1.0
"""Where there is no room for what was chosen, so long nothing else is: choosing takes 0.2 ms."""
MOSTLY = 0.25
"""Of its import, what a function may have left to import when it starts from its packages' zygote."""
BETTER = 2.0
"""So many times as much as those that give way for it a zygote has to save."""


class Zygote:
    """One, as the plan sees it."""

    __slots__ = (
        "age",
        "cost_s",
        "group",
        "id",
        "idle_since",
        "is_aged",
        "is_ready",
        "is_retired",
        "lineage",
        "memory_mb",
        "served",
        "users",
    )

    def __init__(self, number: int, group: Group, now: float, age: float) -> None:
        self.id = number
        self.group = group
        self.memory_mb = making_mb(group)
        self.cost_s = group.import_s
        """What each start from it saves."""
        self.served = 1
        self.idle_since = now
        self.age = age
        self.users: dict[int, Entry] = {}
        """Sandboxes there are that started from it."""
        self.lineage = 0
        self.is_ready = False
        self.is_aged = False
        """Another one is to take its place."""
        self.is_retired = False

    def __repr__(self) -> str:
        state = "retired" if self.is_retired else "ready" if self.is_ready else "being made"
        return f"<Zygote {self.id} of {self.group.need.function} {state}, {len(self.users)} users>"

    @property
    def held_mb(self) -> int:
        """What it counts with: as much as it has."""
        return self.memory_mb

    @property
    def is_idle(self) -> bool:
        """It could go, and those who started from it with it."""
        return self.is_ready and all(user.is_idle for user in self.users.values())

    @property
    def needs_lineage(self) -> bool:
        """Sandboxes of its lineage may still be asked for."""
        starting = Phase.STARTING
        return not self.is_retired or any(user.phase is starting for user in self.users.values())

    @property
    def is_dying(self) -> bool:
        dying = Phase.DYING
        return self.is_retired and all(user.phase is dying for user in self.users.values())


class Brood:
    """All zygotes. They hold at most `budget_mb`, what one that is being made takes included."""

    def __init__(self, budget_mb: int) -> None:
        self.zygotes: dict[int, Zygote] = {}
        self._shared: dict[str, Group] = {}
        """By packages: what stands for all functions that have them."""
        self._aged: set[int] = set()
        """Lineages that have aged and are not released yet."""
        self.committed_mb = 0
        self._budget_mb = budget_mb
        self._last = 0

    def __repr__(self) -> str:
        return f"<Brood of {len(self.zygotes)}, {self.committed_mb} of {self._budget_mb} MB>"

    def wants(self, group: Group, now: float) -> bool:
        """Whether one for this group would be worth it, and there is none."""
        if not _lacks(group) or not group.need.can_freeze or now < group.unfit_until:
            return False
        if group.import_s < WORTH_S or group.last_asked == -math.inf:
            return False
        # Where most of it is had from its packages' zygote, another memory for the rest is not worth it.
        return self._shared_by(group) is None or group.rest_s >= max(WORTH_S, group.import_s * MOSTLY)

    def wants_shared(self, groups: Iterable[Group], now: float) -> list[Group]:
        """Sets of packages of which one for all would be worth it, each as a group of nobody's sandboxes."""
        members: dict[str, list[Group]] = {}
        for group in groups:
            if group.need.packages and group.imports and group.import_s >= WORTH_S and not group.never_shares:
                members.setdefault(group.need.packages, []).append(group)
        found = []
        for packages, several in members.items():
            shared = self._shared.get(packages)
            if shared is None or (_lacks(shared) and now >= shared.unfit_until):
                imports = common([_member(group, now) for group in several]) if len(several) > 1 else None
                if imports:
                    found.append(self._share(packages, imports, several, now))
        return found

    def _share(self, packages: str, imports: frozenset[str], several: list[Group], now: float) -> Group:
        """The group that stands for them; the smallest of them makes it, so that it fits into all."""
        fitting = [group for group in several if imports <= group.imports]
        need = min((group.need for group in fitting), key=lambda need: (need.memory_mb, need.key))
        shared = self._shared.setdefault(packages, Group(need))
        shared.need, shared.imports = need, imports
        shared.import_s = sum(group.import_s for group in fitting) / len(fitting)
        shared.starts = Lately()
        for _ in fitting:
            shared.starts.happened(now)
        shared.last_asked = now
        shared.unfit_until = now + CHOOSE_AGAIN_S
        return shared

    def _shared_by(self, group: Group) -> Zygote | None:
        """That of its packages, where it can start from it."""
        shared = self._shared.get(group.need.packages)
        zygote = None if shared is None or group.never_shares else shared.zygote
        return zygote if zygote is not None and zygote.is_ready else None

    def lacks_mb(self, group: Group) -> int:
        """What those that there are would have to give for one of this group."""
        return self.committed_mb + making_mb(group) - self._budget_mb

    def give_way(self, group: Group, now: float) -> list[DropZygote]:
        """Drop what nobody uses and saves far less than one for this group would; all that takes, or nothing.

        HOLDS: whoever is dropped cannot drop that one in turn, as long as the calls stay as they are.
        """
        lacking_mb = self.lacks_mb(group)
        unused = [one for one in self.zygotes.values() if one.is_ready and not one.is_retired]
        unused = [one for one in unused if not one.users]
        if lacking_mb > sum(one.memory_mb for one in unused):
            return []
        chosen = victims(unused, lacking_mb, lambda one: one.group.saves_s(now) / one.held_mb)
        if BETTER * sum(one.group.saves_s(now) for one in chosen) > group.saves_s(now):
            return []
        return [action for one in chosen for action in self.retire(one)]

    @property
    def dying_mb(self) -> int:
        """Memory of those that will be gone soon, by themselves."""
        return sum(one.memory_mb for one in self.zygotes.values() if one.is_dying)

    @property
    def is_making(self) -> bool:
        """One at a time: each loads a function while others serve."""
        return any(not zygote.is_ready for zygote in self.zygotes.values())

    def make(self, group: Group, now: float, age: float) -> MakeZygote:
        self._last += 1
        zygote = self.zygotes[self._last] = Zygote(self._last, group, now, age)
        group.zygote = group.zygote or zygote
        self.committed_mb += zygote.memory_mb
        is_shared = self._shared.get(group.need.packages) is group
        return MakeZygote(zygote.id, group.need, group.imports if is_shared else frozenset())

    def made(self, event: ZygoteReady | ZygoteFailed, now: float) -> list[DropZygote]:
        """Its maker has come to an end."""
        zygote = self.zygotes[event.zygote]
        if isinstance(event, ZygoteReady):
            zygote.is_ready = True
            zygote.group.attempts = 0
            self.committed_mb += event.memory_mb - zygote.memory_mb
            zygote.memory_mb = event.memory_mb
            zygote.lineage, zygote.is_aged = event.lineage, event.lineage in self._aged
            return self._drop_if_over(zygote) if zygote.is_retired else self._take_place(zygote)
        if zygote.group.zygote is zygote:
            zygote.group.zygote = None
        self._gone(zygote)
        # Of packages it may be the fault of the one function that made it, or tried it.
        is_shared = self._shared.get(zygote.group.need.packages) is zygote.group
        _remember(zygote.group, Flaw.PASSING if is_shared else event.flaw, now)
        return []

    def _take_place(self, zygote: Zygote) -> list[DropZygote]:
        older, zygote.group.zygote = zygote.group.zygote, zygote
        return [] if older is None or older is zygote else self.retire(older)

    def loaded(self, entry: Entry, event: SandboxLoaded) -> list[DropZygote]:
        """A sandbox has loaded its function, from its zygote or by itself."""
        group, zygote = entry.group, entry.zygote
        group.load_s = event.took_s
        group.imports = event.imports or group.imports
        if event.is_thawed:
            return []
        if event.is_partly:
            shared_s = zygote.group.import_s if zygote is not None else 0.0
            group.rest_s, group.import_s = event.took_s, max(group.import_s, shared_s + event.took_s)
            return []
        group.import_s = event.took_s
        if zygote is None or zygote.is_retired:
            return []
        if zygote.group is not group and group.rest_s < 0:
            group.never_shares = True  # it did not fit
            return []
        # Nothing can start from it any more: what all sandboxes are forked from is another by now.
        return self.retire(zygote)

    def forget(self, group: Group) -> list[DropZygote]:
        """Its revision is not current any more, or not expected again."""
        theirs = [one for one in self.zygotes.values() if one.group is group]
        return [action for one in theirs for action in self.retire(one)]

    def aged(self, lineage: int) -> None:
        """What is of it is to be made anew."""
        self._aged.add(lineage)
        for zygote in self.zygotes.values():
            zygote.is_aged |= zygote.is_ready and zygote.lineage == lineage

    def over(self, lineage: int) -> list[DropZygote]:
        """Nothing can start from what is of it any more."""
        self._aged.discard(lineage)
        lost = [one for one in self.zygotes.values() if one.is_ready and one.lineage == lineage]
        return [action for one in lost for action in self.retire(one)]

    def release(self) -> list[ReleaseLineage]:
        """Those that have aged and are not needed. Which one being made is of is known when it is there."""
        if not self._aged or self.is_making:
            return []
        unneeded = self._aged - {one.lineage for one in self.zygotes.values() if one.needs_lineage}
        self._aged -= unneeded
        return [ReleaseLineage(lineage) for lineage in sorted(unneeded)]

    def forget_shared(self, now: float) -> list[DropZygote]:
        """Those of packages that nothing has started from for so long that nobody is expected to."""
        old = [name for name, shared in self._shared.items() if now - shared.last_asked > FORGET_S]
        return [action for name in old for action in self.forget(self._shared.pop(name))]

    def use(self, entry: Entry, now: float, age: float) -> int:
        """What that sandbox starts from: its function's, else its packages'; 0: nothing is ready."""
        zygote = entry.group.zygote
        if zygote is None or not zygote.is_ready:
            zygote = self._shared_by(entry.group)
        if zygote is None:
            return 0
        if zygote.group is not entry.group:
            zygote.group.starts.happened(now)
            zygote.group.last_asked = now
        entry.zygote = zygote
        zygote.users[entry.id] = entry
        zygote.served += 1
        zygote.idle_since, zygote.age = now, age
        return zygote.id

    def retire(self, zygote: Zygote) -> list[DropZygote]:
        """Nothing starts from it any more; it goes when nothing needs its memory."""
        was_retired, zygote.is_retired = zygote.is_retired, True
        if zygote.group.zygote is zygote:
            zygote.group.zygote = None
        if zygote.is_ready:
            return self._drop_if_over(zygote)
        return [] if was_retired else [DropZygote(zygote.id)]  # its maker is told, and says when it is gone

    def retire_unfinished(self) -> list[DropZygote]:
        """Somebody needs the room of those being made."""
        making = [one for one in self.zygotes.values() if not one.is_ready]
        return [action for one in making for action in self.retire(one)]

    def left(self, entry: Entry) -> list[DropZygote]:
        """A sandbox is gone, and with it its part in what it started from."""
        if entry.zygote is None:
            return []
        del entry.zygote.users[entry.id]
        return self._drop_if_over(entry.zygote)

    def _drop_if_over(self, zygote: Zygote) -> list[DropZygote]:
        if not zygote.is_retired or not zygote.is_ready or zygote.users:
            return []
        self._gone(zygote)
        return [DropZygote(zygote.id)]

    def _gone(self, zygote: Zygote) -> None:
        """Nothing of it is left."""
        del self.zygotes[zygote.id]
        self.committed_mb -= zygote.memory_mb


def _lacks(group: Group) -> bool:
    """Whether it has no zygote, or one of which the lineage has aged."""
    return group.zygote is None or group.zygote.is_aged


def _member(group: Group, now: float) -> Member:
    return Member(group.need.function, group.imports, group.saves_s(now))


def _remember(group: Group, flaw: Flaw, now: float) -> None:
    """When the group may have the next attempt."""
    group.attempts += flaw is Flaw.PASSING
    if flaw is not Flaw.LASTING and group.zygote is not None:
        group.unfit_until = now + RENEW_AGAIN_S
        return
    if flaw is Flaw.NONE:
        group.import_s = 0.0  # until the next import has taken long
    elif flaw is Flaw.LASTING or group.attempts >= MOST_ATTEMPTS:
        group.unfit_until = math.inf
    else:
        group.unfit_until = now + AGAIN_S * LONGER ** (group.attempts - 1)


def making_mb(group: Group) -> int:
    return group.need.memory_mb * MAKING_TIMES
