"""Zygotes as the plan keeps them: when one is made, what it counts, and when it goes."""

from __future__ import annotations

import msgspec
import pytest

from stoker.pool.brood import AGAIN_S, LONGER, MOST_ATTEMPTS, RENEW_AGAIN_S, WORTH_S
from stoker.pool.events import (
    Action,
    DestroySandbox,
    DropZygote,
    Flaw,
    LeaseAsked,
    LeaseReturned,
    LineageAged,
    LineageOver,
    MakeZygote,
    Need,
    ReleaseLineage,
    Retired,
    SandboxGone,
    SandboxLoaded,
    SandboxReady,
    StartSandbox,
    Tick,
    ZygoteFailed,
    ZygoteReady,
)
from stoker.pool.plan import Plan
from stoker.types import Reuse

A = Need("a", "front/a", Reuse.PROCESS, memory_mb=100, can_freeze=True)


def loaded(plan: Plan, need: Need = A, took_s: float = 1.0) -> int:
    """One sandbox that has imported its function and is idle; returns it."""
    [start] = plan.on(LeaseAsked(1, need), 0)
    assert isinstance(start, StartSandbox)
    plan.on(SandboxReady(start.sandbox), 0)
    plan.on(SandboxLoaded(start.sandbox, took_s), 0)
    plan.on(LeaseReturned(1, True), 0)
    return start.sandbox


def made(plan: Plan, memory_mb: int = 60) -> None:
    assert plan.on(Tick(), 1) == [MakeZygote(1, A)]
    assert plan.on(ZygoteReady(1, memory_mb), 2) == []


def next_start(plan: Plan, now: float = 3) -> Action:
    """The function's one sandbox is ended, and another is asked for."""
    plan.on(LeaseAsked(2, A), now)
    plan.on(LeaseReturned(2, False), now)
    plan.on(SandboxGone(1), now)
    [start] = plan.on(LeaseAsked(3, A), now)
    return start


def test_what_took_long_to_import_has_a_zygote_and_starts_from_it() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    loaded(plan)
    made(plan)
    assert plan.snapshot().zygotes == 1
    assert plan.snapshot().committed_mb == 160
    assert next_start(plan) == StartSandbox(2, A, zygote=1)


@pytest.mark.parametrize(
    ("need", "took_s", "zygotes_mb"),
    [(A, WORTH_S / 2, 500), (msgspec.structs.replace(A, can_freeze=False), 1.0, 500), (A, 1.0, 199)],
    ids=["quick", "unwilling", "no memory"],
)
def test_what_is_not_worth_it_has_none(need: Need, took_s: float, zygotes_mb: int) -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=zygotes_mb)
    loaded(plan, need, took_s)
    assert plan.on(Tick(), 1) == []


def test_one_is_made_only_in_room_that_nobody_needs() -> None:
    plan = Plan(250, "greedy_dual", zygotes_mb=250)
    loaded(plan)
    assert plan.on(Tick(), 1) == []


def test_one_that_failed_for_good_is_not_tried_again() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    sandbox = loaded(plan)
    assert plan.on(Tick(), 1) == [MakeZygote(1, A)]
    assert plan.on(ZygoteFailed(1, Flaw.NONE), 2) == []
    assert plan.on(Tick(), 3) == [], "not before another import has taken long"
    plan.on(SandboxLoaded(sandbox, 1.0), 3)
    assert plan.on(Tick(), 4) == [MakeZygote(2, A)]
    plan.on(ZygoteFailed(2), 5)
    plan.on(SandboxLoaded(sandbox, 1.0), 5)
    assert plan.on(Tick(), 6) == []
    assert plan.snapshot().committed_mb == 100


def test_one_that_the_machine_may_have_spoilt_is_tried_again_later_and_not_for_ever() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    loaded(plan)
    now, pauses = 1.0, []
    for number in range(1, MOST_ATTEMPTS + 1):
        assert plan.on(Tick(), now) == [MakeZygote(number, A)]
        failed_at = now
        assert plan.on(ZygoteFailed(number, Flaw.PASSING), now) == []
        while number < MOST_ATTEMPTS and now - failed_at < AGAIN_S * LONGER ** (number - 1):
            assert plan.on(Tick(), now) == []
            now += 1
        pauses.append(now - failed_at)
    assert plan.on(Tick(), now + 3600) == []
    assert pauses[:-1] == sorted(set(pauses[:-1]))
    assert plan.snapshot().committed_mb == 100


def test_one_that_came_up_after_all_may_be_spoilt_as_often_again() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    sandbox, number = loaded(plan), 0
    for _ in range(3):
        for attempt in range(MOST_ATTEMPTS):
            number += 1
            now = number * 900.0
            assert plan.on(Tick(), now) == [MakeZygote(number, A)]
            is_last = attempt == MOST_ATTEMPTS - 1
            plan.on(ZygoteReady(number, 60) if is_last else ZygoteFailed(number, Flaw.PASSING), now)
        plan.on(LeaseAsked(number, A), now)
        plan.on(LeaseReturned(number, False), now)
        plan.on(SandboxGone(sandbox), now)
        sandbox += 1
        assert plan.on(LeaseAsked(-number, A), now) == [StartSandbox(sandbox, A, zygote=number)]
        plan.on(SandboxReady(sandbox), now)
        plan.on(SandboxLoaded(sandbox, 1.0), now)  # the zygote was of another interpreter's
        plan.on(LeaseReturned(-number, True), now)


def call(plan: Plan, need: Need, lease: int, took_s: float, now: float) -> list[Action]:
    """A call in a sandbox of its own, from the start to its end; what else was decided."""
    actions = plan.on(LeaseAsked(lease, need), now)
    [start] = [action for action in actions if isinstance(action, StartSandbox)]
    plan.on(SandboxReady(start.sandbox), now)
    actions += plan.on(SandboxLoaded(start.sandbox, took_s, is_thawed=start.zygote > 0), now)
    actions += plan.on(LeaseReturned(lease, True), now)
    return actions + plan.on(SandboxGone(start.sandbox), now)


def test_a_zygote_gives_way_to_one_that_saves_far_more_and_not_back() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=200)
    seldom, often = (Need(name, f"front/{name}", Reuse.NONE, memory_mb=100, can_freeze=True) for name in "so")
    call(plan, seldom, 1, 1.0, 0)
    assert plan.on(Tick(), 1) == [MakeZygote(1, seldom)]
    plan.on(ZygoteReady(1, 150), 1)
    call(plan, often, 2, 1.0, 2)
    assert plan.on(Tick(), 3) == [], "both save as much"
    for lease in range(3, 6):
        call(plan, often, lease, 1.0, 4)
    assert plan.on(Tick(), 5) == [DropZygote(1), MakeZygote(2, often)]
    plan.on(ZygoteReady(2, 150), 5)
    for lease in range(6, 12):
        call(plan, often, lease, 0.01, 6)
        call(plan, seldom, -lease, 1.0, 6)
        assert plan.on(Tick(), lease) == []
    assert plan.snapshot().zygotes == 1


def test_a_zygote_that_somebody_uses_does_not_give_way() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=200)
    loaded(plan)
    made(plan, 150)
    next_start(plan)
    often = Need("o", "front/o", Reuse.NONE, memory_mb=100, can_freeze=True)
    for lease in range(10, 30):
        call(plan, often, lease, 1.0, 4)
    assert plan.on(Tick(), 5) == []


def test_one_that_nothing_starts_from_any_more_goes_with_its_last_sandbox() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    loaded(plan)
    made(plan)
    assert next_start(plan) == StartSandbox(2, A, zygote=1)
    plan.on(SandboxReady(2), 3)
    assert plan.on(SandboxLoaded(2, 1.0, is_thawed=False), 3) == []
    plan.on(LeaseReturned(3, False), 4)
    assert plan.on(SandboxGone(2), 4) == [DropZygote(1)]
    assert plan.snapshot().zygotes == 0


def test_a_revision_that_is_not_current_takes_its_zygote_along() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    sandbox = loaded(plan)
    made(plan)
    assert plan.on(Retired(revision="a"), 3) == [DestroySandbox(sandbox), DropZygote(1)]


def test_a_zygote_goes_for_room_and_those_that_started_from_it_before_it() -> None:
    plan = Plan(400, "greedy_dual", zygotes_mb=400)
    loaded(plan)
    made(plan, memory_mb=150)
    assert next_start(plan) == StartSandbox(2, A, zygote=1)
    plan.on(SandboxReady(2), 3)
    plan.on(SandboxLoaded(2, 0.01, is_thawed=True), 3)
    plan.on(LeaseReturned(3, True), 4)
    big = Need("b", "front/b", Reuse.PROCESS, memory_mb=400)
    assert plan.on(LeaseAsked(4, big), 5) == [DestroySandbox(2)]
    assert plan.on(SandboxGone(2), 6) == [DropZygote(1), StartSandbox(3, big)]


def of_packages(name: str, memory_mb: int = 100, packages: str = "p") -> Need:
    return Need(name, f"front/{name}", Reuse.NONE, memory_mb=memory_mb, can_freeze=True, packages=packages)


def imported(
    plan: Plan, need: Need, lease: int, *names: str, how: str = "afresh", took_s: float = 1.0
) -> int:
    """A call in a sandbox of its own, which says what it named; what it started from."""
    [start] = [one for one in plan.on(LeaseAsked(lease, need), 0) if isinstance(one, StartSandbox)]
    plan.on(SandboxReady(start.sandbox), 0)
    said = SandboxLoaded(start.sandbox, took_s, how == "thawed", how == "partly", frozenset(names))
    plan.on(said, 0)
    plan.on(LeaseReturned(lease, True), 0)
    plan.on(SandboxGone(start.sandbox), 0)
    return start.zygote


def sharing_plan() -> Plan:
    """Zygote 1 is of the package `n`, which two functions name."""
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    imported(plan, of_packages("a"), 1, "n", "m")
    imported(plan, of_packages("b", memory_mb=80), 2, "n")
    assert plan.on(Tick(), 1) == [MakeZygote(1, of_packages("b", memory_mb=80), frozenset("n"))]
    assert plan.on(ZygoteReady(1, 60), 2) == []
    return plan


def test_a_function_starts_from_what_others_have_imported_of_its_packages() -> None:
    plan = sharing_plan()
    assert imported(plan, of_packages("new"), 3, how="partly", took_s=0.01) == 1
    assert imported(plan, of_packages("other", packages="q"), 4, took_s=0.01) == 0
    assert plan.on(Tick(), 3) == [], "who has little left to import needs none of his own"
    assert plan.snapshot().committed_mb == 60


def test_who_has_much_left_to_import_has_a_zygote_of_his_own_and_starts_from_that() -> None:
    plan = sharing_plan()
    for number, name in enumerate(("a", "new"), 2):
        imported(plan, of_packages(name), 3, "n", "m", how="partly", took_s=0.7)
        assert plan.on(Tick(), number) == [MakeZygote(number, of_packages(name))]
        plan.on(ZygoteReady(number, 60), number)
        assert imported(plan, of_packages(name), 4, how="thawed", took_s=0.01) == number


def test_who_does_not_fit_is_not_asked_again_and_has_his_own() -> None:
    plan = sharing_plan()
    assert imported(plan, of_packages("odd"), 3, "n") == 1
    assert imported(plan, of_packages("odd"), 4, "n") == 0
    assert plan.on(Tick(), 3) == [MakeZygote(2, of_packages("odd"))]
    assert imported(plan, of_packages("new"), 5, how="partly", took_s=0.01) == 1


def test_one_of_packages_goes_when_it_fits_nobody_any_more() -> None:
    plan = sharing_plan()
    imported(plan, of_packages("new"), 3, how="partly", took_s=0.01)
    imported(plan, of_packages("new"), 4, "n")  # what sandboxes are forked from is another by now
    assert plan.snapshot().zygotes == 0
    assert isinstance(plan.on(Tick(), 3)[0], MakeZygote)


def test_one_of_packages_that_failed_is_tried_again_later() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    for lease, name in enumerate("ab"):
        imported(plan, of_packages(name), lease, "n")
    [make] = plan.on(Tick(), 1)
    assert make == MakeZygote(1, of_packages("a"), frozenset("n"))
    plan.on(ZygoteFailed(1, Flaw.LASTING), 2)
    assert plan.on(Tick(), 3) == [MakeZygote(2, of_packages("a"))], "they have their own meanwhile"
    plan.on(ZygoteFailed(2, Flaw.LASTING), 4)
    plan.on(Tick(), 5)
    plan.on(ZygoteFailed(3, Flaw.LASTING), 6)
    assert plan.on(Tick(), 7) == []
    assert plan.on(Tick(), 3 + AGAIN_S) == [MakeZygote(4, of_packages("a"), frozenset("n"))]


def test_one_that_is_being_made_gives_its_room_at_once() -> None:
    plan = Plan(300, "greedy_dual", zygotes_mb=300)
    sandbox = loaded(plan)
    assert plan.on(Tick(), 1) == [MakeZygote(1, A)]
    b = Need("b", "front/b", Reuse.PROCESS, memory_mb=200)
    assert plan.on(LeaseAsked(2, b), 2) == [DropZygote(1)]
    assert plan.on(ZygoteFailed(1, Flaw.NONE), 3) == [StartSandbox(2, b)]
    assert plan.snapshot().committed_mb == 300
    assert sandbox == 1


def renewing_plan() -> Plan:
    """With a zygote of lineage 7, which has aged."""
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    loaded(plan)
    plan.on(Tick(), 1)
    plan.on(ZygoteReady(1, 60, lineage=7), 2)
    assert plan.on(LineageAged(7), 3) == []
    return plan


def test_what_is_of_a_lineage_that_has_aged_serves_until_another_is_made() -> None:
    plan = renewing_plan()
    assert plan.on(Tick(), 4) == [MakeZygote(2, A)]
    assert next_start(plan, 5) == StartSandbox(2, A, zygote=1)
    plan.on(SandboxReady(2), 5)
    plan.on(SandboxLoaded(2, 0.01, is_thawed=True), 5)
    assert plan.on(ZygoteReady(2, 60, lineage=8), 6) == []
    assert plan.on(Tick(), 7) == [ReleaseLineage(7)], (
        "its memory stays with its sandbox, which needs no other"
    )
    plan.on(LeaseReturned(3, False), 8)
    assert plan.on(SandboxGone(2), 8) == [DropZygote(1)]
    assert plan.on(LeaseAsked(4, A), 9) == [StartSandbox(3, A, zygote=2)]
    assert plan.on(Tick(), 10) == []
    assert plan.snapshot().zygotes == 1


def test_a_lineage_is_not_released_under_a_sandbox_that_is_just_being_made_of_it() -> None:
    plan = renewing_plan()
    plan.on(Tick(), 4)
    assert next_start(plan, 5) == StartSandbox(2, A, zygote=1)
    plan.on(ZygoteReady(2, 60, lineage=8), 6)
    assert plan.on(Tick(), 7) == []
    plan.on(SandboxReady(2), 8)
    assert plan.on(Tick(), 9) == [ReleaseLineage(7)]


def test_one_that_cannot_be_made_anew_serves_as_long_as_its_lineage_does() -> None:
    plan = renewing_plan()
    assert plan.on(Tick(), 4) == [MakeZygote(2, A)]
    for number in range(2, 12):
        now = 4 + RENEW_AGAIN_S * (number - 2)
        plan.on(ZygoteFailed(number, Flaw.PASSING if number % 2 else Flaw.NONE), now)
        assert plan.on(Tick(), now + RENEW_AGAIN_S - 1) == []
        assert plan.on(Tick(), now + RENEW_AGAIN_S) == [MakeZygote(number + 1, A)]
    assert next_start(plan, 1000) == StartSandbox(2, A, zygote=1)
    plan.on(LineageOver(7), 1001)
    plan.on(LeaseReturned(3, False), 1002)
    assert plan.on(SandboxGone(2), 1002) == [DropZygote(1)]
    assert plan.on(LeaseAsked(4, A), 1003) == [StartSandbox(3, A)]


def test_a_revision_that_goes_takes_what_is_being_made_anew_along() -> None:
    plan = renewing_plan()
    plan.on(Tick(), 4)
    actions = plan.on(Retired(revision="a"), 5)
    assert set(actions) == {DestroySandbox(1), DropZygote(1), DropZygote(2)}
    assert plan.on(ZygoteReady(2, 60, lineage=8), 6) == [DropZygote(2)]
    assert plan.on(Tick(), 7) == [ReleaseLineage(7)]
    assert plan.snapshot().zygotes == 0


def test_a_lineage_that_nothing_is_frozen_of_is_released_at_once() -> None:
    plan = Plan(1000, "greedy_dual", zygotes_mb=500)
    plan.on(LineageAged(7), 0)
    assert plan.on(Tick(), 1) == [ReleaseLineage(7)]
    assert plan.on(Tick(), 2) == []


def test_one_of_packages_is_made_anew_too_and_serves_meanwhile() -> None:
    plan = sharing_plan()
    [zygote] = [number for number, one in plan._brood.zygotes.items() if one.is_ready]
    plan.on(LineageAged(0), 100)
    [make] = [action for action in plan.on(Tick(), 100) if isinstance(action, MakeZygote)]
    assert make.imports
    assert plan._brood.zygotes[zygote].needs_lineage
    plan.on(ZygoteReady(make.zygote, 60, lineage=8), 101)
    assert ReleaseLineage(0) in plan.on(Tick(), 102)
