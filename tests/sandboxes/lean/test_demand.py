"""How many spares there should be: the policy alone, then as it is told the helper, without either."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.sandboxes.contract import Launch
from stoker.sandboxes.lean.demand import HALF_S, MOST, Demand, share
from stoker.sandboxes.lean.packets import EGRESS, HAS_CODE, HAS_WORKSPACE, HOST_NETWORK, KINDS, Make
from stoker.sandboxes.lean.privileged.sandbox import Sandbox
from stoker.sandboxes.lean.privileged.spares import Spares as Shelves
from stoker.sandboxes.lean.spares import EXECUTED_MB, FORKED_MB, Spares

PYTHON = Launch(name="python", argv=("python",), fork="server.py")
NODE = Launch(name="nodejs", argv=("node",))
LEAST = 2
ORDER = Make(0, HAS_CODE, 128 << 20, 1000, 64, 64 << 20, 16_384, b"guest")


class Helper:
    """Hears what is wanted; `answer` says what it has, at first as much as is wanted."""

    def __init__(self, least: int = LEAST) -> None:
        self.wanted: dict[int, tuple[int, Make]] = {}
        self.packets = 0
        self.spares = Spares((PYTHON, NODE), least, 2, self.hear)
        self.totals: list[tuple[int, int]] = []
        self.spares.on_change = lambda number, memory_mb: self.totals.append((number, memory_mb))

    def hear(self, kind: int, number: int, pattern: Make) -> int:
        self.wanted[kind] = (number, pattern)
        self.packets += 1
        return self.packets

    def says(self, kind: int, held: int, took_s: float = 0.0, word: int | None = None) -> None:
        self.spares.heard(kind, held, took_s, self.packets if word is None else word)

    def answer(self) -> None:
        for kind, (number, _) in self.wanted.items():
            self.says(kind, number)

    def numbers(self) -> list[int]:
        return [number for number, _ in self.wanted.values()]


def of(arrivals: list[float], make_s: float = 0.004, makers: int = 2) -> Demand:
    demand = Demand(make_s, makers)
    for now in arrivals:
        demand.came(now)
    return demand


def test_a_burst_is_remembered_for_the_next_and_then_forgotten() -> None:
    demand = of([0.0] * 50)
    assert demand.wanted(0.0) == 50
    assert demand.wanted(HALF_S) == 25
    assert demand.wanted(20 * HALF_S) == 0


def test_calls_that_come_one_at_a_time_want_one() -> None:
    assert of([0.1 * number for number in range(100)]).wanted(10.0) == 1


def test_more_calls_than_can_be_made_want_no_more_than_the_most() -> None:
    assert of([0.0001 * number for number in range(10_000)]).wanted(1.0) == MOST


def test_what_takes_longer_to_make_is_wanted_sooner() -> None:
    arrivals = [0.02 * number for number in range(100)]
    assert of(arrivals, make_s=0.004).wanted(2.0) < of(arrivals, make_s=0.1).wanted(2.0)
    demand = of([0.0], make_s=0.004)
    for _ in range(100):
        demand.took(0.1)
    assert demand.make_s == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [0.2, 0.5, 0.7])
def test_as_many_as_are_wanted_let_nearly_nobody_wait(load: float, seed: int) -> None:
    """Poisson arrivals against makers that make a spare each in `make_s`, as the helper does."""
    chance, make_s, makers = random.Random(seed), 0.004, 2
    demand = Demand(make_s, makers)
    now, stock, made_until, misses = 0.0, float(LEAST), 0.0, 0
    for number in range(4000):
        now += chance.expovariate(load * makers / make_s)
        target = max(LEAST, demand.wanted(now))
        stock = min(target, stock + (now - made_until) * makers / make_s)
        made_until = now
        demand.came(now)
        misses += stock < 1 and number >= 500
        stock = max(0.0, stock - 1)
    assert misses <= 35


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), max_size=8), st.integers(0, 2000))
def test_a_share_is_within_the_room_and_fair(wants: list[tuple[int, int]], room_mb: int) -> None:
    wanted, each_mb = [want for want, _ in wants], [mb for _, mb in wants]
    given_ = share(wanted, each_mb, room_mb)
    left_mb = room_mb - sum(number * mb for number, mb in zip(given_, each_mb, strict=True))
    assert left_mb >= 0
    for number, want, mb in zip(given_, wanted, each_mb, strict=True):
        assert number == want or (number < want and mb > left_mb)


def test_the_first_call_of_a_language_has_the_least_made_and_a_steady_one_says_no_more() -> None:
    helper = Helper()
    for number in range(1000):
        helper.spares.asked(ORDER, 0.1 * number)
    assert helper.numbers() == [LEAST]
    assert helper.packets == 1
    _, pattern = helper.wanted[0]
    assert (pattern.flags, pattern.name) == (0, b"spare")


def test_a_burst_of_a_language_is_made_ready_for_and_ebbs() -> None:
    helper = Helper()
    for _ in range(50):
        helper.spares.asked(ORDER, 1.0)
    helper.spares.review(1.0)
    assert helper.numbers() == [50]
    helper.spares.review(1.0 + 10 * HALF_S)
    assert helper.numbers() == [LEAST]


def test_a_language_that_is_expected_has_spares_before_its_first_call() -> None:
    helper = Helper()
    helper.spares.expect(ORDER._replace(launch=1), 0.0)
    assert helper.numbers() == [LEAST]
    assert helper.totals[-1] == (LEAST, LEAST * EXECUTED_MB)


def test_no_spares_are_wanted_where_there_are_to_be_none() -> None:
    helper = Helper(least=0)
    assert helper.spares.asked(ORDER, 0.0) is None
    helper.spares.expect(ORDER, 0.0)
    assert helper.wanted == {}


@pytest.mark.parametrize("flags", [HAS_WORKSPACE, HOST_NETWORK])
def test_what_a_spare_cannot_become_has_none(flags: int) -> None:
    helper = Helper()
    assert helper.spares.asked(ORDER._replace(flags=flags), 0.0) is None
    assert helper.wanted == {}


def test_other_bounds_and_another_network_are_other_kinds_and_the_last_of_each_has_the_least() -> None:
    helper = Helper()
    helper.spares.asked(ORDER, 0.0)
    helper.spares.asked(ORDER._replace(flags=EGRESS), 1.0)
    helper.spares.asked(ORDER._replace(scratch_bytes=1 << 20), 2.0)
    helper.spares.review(2.0 + 10 * HALF_S)
    assert helper.numbers() == [0, LEAST, LEAST]


def test_however_many_kinds_are_asked_for_the_newest_replace_the_oldest() -> None:
    helper = Helper()
    for number in range(10 * KINDS):
        while helper.spares.asked(ORDER._replace(pids=number + 1), float(number)) is None:
            helper.answer()
    assert set(helper.wanted) == set(range(KINDS))
    assert sorted(pattern.pids for _, pattern in helper.wanted.values())[0] == 9 * KINDS + 1


def test_a_kind_is_replaced_once_its_spares_have_gone() -> None:
    helper = Helper()
    for number in range(KINDS):
        helper.spares.asked(ORDER._replace(pids=number + 1), float(number))
    helper.says(0, 2, 0.003)
    new = ORDER._replace(pids=1000)
    assert helper.spares.asked(new, 100.0) is None
    assert helper.wanted[0][0] == 0
    helper.says(0, 0)
    assert helper.spares.asked(new, 101.0) is not None
    assert helper.wanted[0][1].pids == 1000


def test_memory_is_counted_until_the_helper_says_that_it_is_free() -> None:
    helper = Helper()
    helper.spares.asked(ORDER, 0.0)
    for held in (1, 2):
        helper.says(0, held, 0.003)
    assert helper.spares.total() == (2, 2 * FORKED_MB)
    helper.spares.bound(FORKED_MB, 1.0)
    assert helper.numbers() == [1]
    assert helper.spares.total() == (2, 2 * FORKED_MB)
    helper.says(0, 1)
    assert helper.spares.total() == (1, FORKED_MB) == helper.totals[-1]


def test_those_begun_count_until_the_helper_has_answered_to_fewer() -> None:
    """It tells of one when it is made, and acts by each word as it comes to it."""
    helper = Helper()
    for _ in range(30):
        helper.spares.asked(ORDER, 1.0)
    helper.spares.review(1.0)
    helper.says(0, 9, 0.003)
    told = helper.packets
    helper.spares.bound(2 * FORKED_MB, 1.0)
    helper.spares.bound(FORKED_MB, 1.0)
    assert helper.numbers() == [1]
    for word, held, counted in ((told, 10, 30), (told + 1, 28, 28), (told + 1, 2, 2), (told + 2, 2, 2)):
        helper.says(0, held, 0.0, word)
        assert helper.spares.total() == (counted, counted * FORKED_MB)
    helper.says(0, 1)
    assert helper.spares.total() == (1, FORKED_MB) == helper.totals[-1]


def test_what_was_taken_back_may_be_begun_again_before_it_is_counted_no_more() -> None:
    helper = Helper()
    helper.spares.asked(ORDER, 0.0)
    helper.answer()
    helper.spares.bound(0, 0.0)
    helper.spares.bound(10 * FORKED_MB, 0.0)
    helper.says(0, 0, 0.0, helper.packets - 1)
    assert helper.spares.total() == (LEAST, LEAST * FORKED_MB)


def test_one_that_was_given_away_is_a_spare_no_more() -> None:
    helper = Helper()
    kind = helper.spares.asked(ORDER, 0.0)
    assert kind is not None
    helper.says(0, 2, 0.003)
    helper.spares.bound(0, 0.0)
    helper.says(0, 2)
    helper.spares.given(kind, 1, 0.0)
    assert helper.spares.total() == (1, FORKED_MB)


def test_a_new_helper_is_told_of_everything_again() -> None:
    helper = Helper()
    helper.spares.asked(ORDER, 0.0)
    helper.says(0, 2, 0.003)
    helper.wanted.clear()
    helper.spares.lost()
    assert helper.spares.total() == (0, 0)
    helper.spares.review(1.0)
    assert helper.numbers() == [LEAST]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(0, 3)), max_size=60))
def test_whatever_is_asked_for_spares_are_within_their_bound(history: list[tuple[int, int, int]]) -> None:
    helper, room_mb = Helper(), 100
    helper.spares.bound(room_mb, 0.0)
    for (pids, times, launch), now in zip(history, itertools.count(), strict=False):
        order = ORDER._replace(pids=pids + 1, launch=launch % 2)
        for _ in range(times):
            helper.spares.asked(order, float(now))
        assert helper.spares.total()[1] <= room_mb
        helper.answer()
        assert helper.spares.total()[1] <= room_mb


class Late:
    """A helper that acts by each word late, and tells of what it begins when that is made or gone."""

    def __init__(self) -> None:
        self.spares = Spares((PYTHON,), LEAST, 2, self.hear)
        self.number = 0
        self.words: list[tuple[int, int]] = []
        self.wanted = self.word = self.begun = self.made = self.ending = 0

    def hear(self, kind: int, number: int, pattern: Make) -> int:
        self.number += 1
        self.words.append((self.number, number))
        return self.number

    @property
    def held(self) -> int:
        return self.begun + self.made + self.ending

    def tell(self) -> None:
        self.spares.heard(0, self.held, 0.0, self.word)

    def act(self, what: str) -> None:
        if what == "hear" and self.words:
            self.word, self.wanted = self.words.pop(0)
            self.ending += max(0, self.begun + self.made - self.wanted)
            self.made = min(self.made, self.wanted)
            self.begun = min(self.begun, self.wanted - self.made)
            self.tell()
        elif what == "begin" and self.held < self.wanted:
            self.begun += 1
        elif what == "make" and self.begun:
            self.begun, self.made = self.begun - 1, self.made + 1
            self.tell()
        elif what == "end" and self.ending:
            self.ending -= 1
            self.tell()


late_steps = st.one_of(st.sampled_from(["hear", "begin", "begin", "make", "end", "ask"]), st.integers(0, 12))


@settings(deadline=None)
@given(st.lists(late_steps, max_size=100))
def test_a_late_helper_never_has_more_than_is_counted(steps: list[str | int]) -> None:
    helper = Late()
    for step in steps:
        if isinstance(step, int):
            helper.spares.bound(step * FORKED_MB, 0.0)
        elif step == "ask":
            helper.spares.asked(ORDER, 0.0)
        else:
            helper.act(step)
        assert helper.held <= helper.spares.total()[0]


def test_none_is_begun_in_the_place_of_one_that_is_still_being_ended() -> None:
    shelves, pattern = Shelves(at_once=100), ORDER._replace(flags=0)

    def begin() -> list[Sandbox]:
        begun = []
        while (wanted := shelves.next()) is not None:
            kind, number, order = wanted
            begun.append(Sandbox(number, order, [], None))  # type: ignore[arg-type]
            shelves.begun(kind, begun[-1])
        return begun

    assert shelves.want(0, 5, 1, pattern) == []
    first = begin()
    assert len(first) == shelves.left_by(first[0])[0] == 5
    ending = shelves.want(0, 2, 2, pattern)
    assert (len(ending), shelves.want(0, 5, 3, pattern), begin()) == (3, [], [])
    assert not shelves.is_short()
    for number, spare in enumerate(ending, 1):
        spare.is_destroyed = True
        shelves.ended(spare)
        assert (len(begin()), shelves.left_by(spare)[0], number) == (1, 5, number)
