"""The plan as a script: events sent, actions expected; then random histories with the invariants."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stoker.pool.events import (
    Action,
    BoundSpares,
    DestroySandbox,
    DropZygote,
    Event,
    Flaw,
    GrantLease,
    LeaseAsked,
    LeaseReturned,
    LeaseWithdrawn,
    LineageAged,
    LineageOver,
    MakeZygote,
    MeasureSandbox,
    Need,
    PrewarmChanged,
    RefuseLease,
    ReleaseLineage,
    Retired,
    SandboxEnded,
    SandboxGone,
    SandboxLoaded,
    SandboxMeasured,
    SandboxQueues,
    SandboxReady,
    SandboxStalled,
    SparesChanged,
    StartSandbox,
    Tick,
    ZygoteFailed,
    ZygoteReady,
)
from stoker.pool.groups import START_COST_S, STUCK_S
from stoker.pool.keeping import FIXED_KEEP_S, FORGET_S, POLICIES
from stoker.pool.plan import HEAD_S, QUANTUM_S, Plan
from stoker.pool.stock import SLOW_START_S
from stoker.settings import Keeping
from stoker.types import Reuse, Source


def need(
    name: str = "a",
    *,
    reuse: Reuse = Reuse.PROCESS,
    memory_mb: int = 100,
    places: int = 1,
    at_most: int = 0,
    depth: int = 0,
    can_freeze: bool = False,
    packages: str = "",
) -> Need:
    return Need(
        revision=name,
        function=f"front/{name}",
        reuse=reuse,
        memory_mb=memory_mb,
        places=places,
        depth=depth,
        at_most=at_most,
        keep_s=10.0,
        can_freeze=can_freeze,
        packages=packages,
    )


def telling(name: str = "a", **fields: Any) -> Need:
    """A need whose sandboxes tell what they hold."""
    return msgspec.structs.replace(need(name, **fields), tells_memory=True)


def expected(name: str = "a") -> Need:
    """A need whose keeping is the policy's affair."""
    return msgspec.structs.replace(need(name), keep_s=None)


def warm(plan: Plan, lease: int, of: Need, now: float = 0.0) -> int:
    """Bring one sandbox up through one healthy lease; returns the sandbox."""
    [start] = plan.on(LeaseAsked(lease, of), now)
    assert isinstance(start, StartSandbox)
    plan.on(SandboxReady(start.sandbox), now)
    plan.on(LeaseReturned(lease, True), now)
    return start.sandbox


def test_a_first_lease_starts_a_sandbox_and_is_granted_when_it_is_ready() -> None:
    plan, a = Plan(1000, "fixed"), need()
    assert plan.on(LeaseAsked(1, a), 0) == [StartSandbox(1, a)]
    assert plan.on(SandboxReady(1), 0) == [GrantLease(1, 1, Source.FRESH)]


def test_a_returned_warm_sandbox_serves_the_next_lease_at_once() -> None:
    plan, a = Plan(1000, "fixed"), need()
    sandbox = warm(plan, 1, a)
    assert plan.on(LeaseAsked(2, a), 1) == [GrantLease(2, sandbox, Source.WARM)]


def test_an_unhealthy_sandbox_is_destroyed_and_not_returned() -> None:
    plan, a = Plan(1000, "fixed"), need()
    plan.on(LeaseAsked(1, a), 0)
    plan.on(SandboxReady(1), 0)
    assert plan.on(LeaseReturned(1, False), 0) == [DestroySandbox(1)]
    assert plan.on(LeaseAsked(2, a), 0) == [StartSandbox(2, a)]


def test_reuse_none_gets_a_fresh_sandbox_every_time() -> None:
    plan, a = Plan(1000, "fixed"), need(reuse=Reuse.NONE)
    plan.on(LeaseAsked(1, a), 0)
    plan.on(SandboxReady(1), 0)
    assert plan.on(LeaseReturned(1, True), 0) == [DestroySandbox(1)]


def test_a_sandbox_of_one_revision_never_serves_another() -> None:
    plan = Plan(1000, "fixed")
    warm(plan, 1, need("a"))
    assert plan.on(LeaseAsked(2, need("b")), 0) == [StartSandbox(2, need("b"))]


def test_a_waiting_lease_takes_a_warm_sandbox_freed_before_its_own_is_ready() -> None:
    plan, a = Plan(1000, "fixed"), need()
    sandbox = warm(plan, 1, a)
    plan.on(LeaseAsked(2, a), 0)
    assert plan.on(LeaseAsked(3, a), 0) == [StartSandbox(2, a)]
    assert plan.on(LeaseReturned(2, True), 0.1) == [GrantLease(3, sandbox, Source.WARM)]


def test_short_calls_wait_for_the_sandbox_that_is_there_instead_of_starting_another() -> None:
    plan, a = Plan(1000, "fixed"), need()
    warm(plan, 1, a)
    plan.on(LeaseAsked(2, a), 0)
    plan.on(LeaseReturned(2, True, run_s=START_COST_S / 10), 0)
    plan.on(LeaseAsked(3, a), 1)
    assert plan.on(LeaseAsked(4, a), 1) == []


def test_a_line_that_does_not_move_gets_another_sandbox_however_short_calls_were() -> None:
    plan, a = Plan(1000, "fixed"), need()
    warm(plan, 1, a)
    plan.on(LeaseAsked(2, a), 0)
    plan.on(LeaseReturned(2, True, run_s=START_COST_S / 10), 0)
    plan.on(LeaseAsked(3, a), 1)
    plan.on(LeaseAsked(4, a), 1)
    plan.on(Tick(), 1)
    assert plan.on(Tick(), 1 + STUCK_S) == [StartSandbox(2, a)]


def test_a_node_that_was_kept_away_takes_no_unread_answers_for_a_line_that_stands_still() -> None:
    plan, a = Plan(1000, "fixed"), need(depth=16)
    short(plan, a)
    for lease in range(3, 40):
        plan.on(LeaseAsked(lease, a), 0)
    assert plan.on(Tick(), 1) == plan.on(LeaseAsked(40, a), 1) == [], "what was answered meanwhile is unread"
    plan.on(LeaseReturned(2, True, run_s=0.00001), 1)
    assert plan.on(Tick(), 1.001) == plan.on(Tick(), 1 + STUCK_S / 2) == []
    assert plan.on(Tick(), 1 + STUCK_S) == [StartSandbox(2, a)]


def rest(plan: Plan, *sandboxes: int, memory_mb: int = 4, now: float = 1.0) -> list[Action]:
    """They hold so much, as the plan has asked; what comes of the last."""
    return [plan.on(SandboxMeasured(sandbox, memory_mb), now) for sandbox in sandboxes][-1]


def test_idle_sandboxes_are_measured_before_one_is_ended() -> None:
    plan, other = Plan(200, "fixed"), telling("b", memory_mb=150)
    sandbox = warm(plan, 1, telling("a"))
    assert plan.on(LeaseAsked(2, other), 1) == [MeasureSandbox(sandbox)]
    assert rest(plan, sandbox) == [StartSandbox(2, other)]
    assert plan.snapshot().committed_mb == 6 + 150


def test_one_that_rests_counts_with_its_share_where_there_cannot_be_more_in_number() -> None:
    plan, other = Plan(200, "fixed"), telling("b", memory_mb=150)
    sandbox = warm(plan, 1, msgspec.structs.replace(telling("a"), least_mb=40))
    plan.on(LeaseAsked(2, other), 1)
    assert rest(plan, sandbox) == [StartSandbox(2, other)]
    assert plan.snapshot().committed_mb == 40 + 150


def test_one_that_holds_its_limit_is_ended_for_room() -> None:
    plan, other = Plan(200, "fixed"), telling("b", memory_mb=150)
    sandbox = warm(plan, 1, telling("a"))
    plan.on(LeaseAsked(2, other), 1)
    assert rest(plan, sandbox, memory_mb=100) == [DestroySandbox(sandbox)]


def answered(plan: Plan, actions: list[Action], now: float) -> list[Action]:
    """What is left to do when each that is to be measured has told that it holds 4 MB."""
    done: list[Action] = []
    for action in actions:
        more = rest(plan, action.sandbox, now=now) if isinstance(action, MeasureSandbox) else None
        done += [action] if more is None else answered(plan, more, now)
    return done


def test_a_sandbox_that_rests_counts_with_its_limit_before_a_lease_enters() -> None:
    plan = Plan(250, "fixed")
    first = warm(plan, 1, telling("a"))
    second = warm(plan, 2, telling("b"))
    assert answered(plan, plan.on(LeaseAsked(3, telling("c")), 1), 1) == [StartSandbox(3, telling("c"))]
    plan.on(SandboxReady(3), 1)
    assert plan.snapshot().committed_mb == 6 + 100 + 100
    assert plan.on(LeaseAsked(4, telling("a")), 2) == [MeasureSandbox(second)]
    assert rest(plan, second) == [GrantLease(4, first, Source.WARM)]
    assert plan.snapshot().committed_mb == 100 + 6 + 100


def test_of_those_that_rest_no_more_are_at_work_than_their_limits_allow() -> None:
    plan, names = Plan(300, "fixed"), "abcdefgh"
    for number, name in enumerate(names, 1):
        answered(plan, plan.on(LeaseAsked(number, telling(name)), 1), 1)
        plan.on(SandboxReady(number), 1)
        plan.on(LeaseReturned(number, True), 1)
    assert plan.snapshot().idle == len(names)
    done = []
    for number, name in enumerate(names, 101):
        done += answered(plan, plan.on(LeaseAsked(number, telling(name)), 2), 2)
    assert [type(action) for action in done] == [GrantLease, GrantLease]
    assert plan.snapshot().waiting == 6


def test_one_that_waits_for_a_resting_sandbox_gets_it_when_another_call_ends() -> None:
    plan = Plan(200, "fixed")
    resting = warm(plan, 1, telling("a"))
    plan.on(LeaseAsked(2, telling("b", memory_mb=150)), 1)
    rest(plan, resting)
    plan.on(SandboxReady(2), 1)
    assert plan.on(LeaseAsked(3, telling("a")), 2) == []
    assert plan.on(LeaseReturned(2, True), 3) == [MeasureSandbox(2)]
    assert rest(plan, 2) == [GrantLease(3, resting, Source.WARM)]


def test_one_that_grew_while_nobody_called_it_is_ended_where_there_is_no_room() -> None:
    plan = Plan(200, "fixed")
    resting = warm(plan, 1, telling("a"))
    plan.on(LeaseAsked(2, telling("b", memory_mb=150)), 1)
    rest(plan, resting)
    assert plan.on(Tick(), 2) == [MeasureSandbox(resting)]
    assert rest(plan, resting, memory_mb=20) == []
    assert plan.on(Tick(), 3) == [MeasureSandbox(resting)]
    assert rest(plan, resting, memory_mb=90) == [DestroySandbox(resting)]


def test_a_sandbox_of_whom_nobody_can_tell_counts_with_its_limit() -> None:
    plan, other = Plan(200, "fixed"), telling("b", memory_mb=150)
    sandbox = warm(plan, 1, telling("a"))
    plan.on(LeaseAsked(2, other), 1)
    assert plan.on(SandboxMeasured(sandbox, None), 1) == [DestroySandbox(sandbox)]


def test_starts_go_round_the_functions_that_wait() -> None:
    plan, a, b = Plan(300, "fixed"), need("a"), need("b")
    for lease in (1, 2, 3):
        plan.on(LeaseAsked(lease, need("full")), 0)
        plan.on(SandboxReady(lease), 0)
    for lease, which in ((4, a), (5, a), (6, b), (7, b)):
        plan.on(LeaseAsked(lease, which), 0)
    started = []
    for lease in (1, 2, 3):
        plan.on(LeaseReturned(lease, False), 0)
        started += plan.on(SandboxGone(lease), 0)
    assert started == [StartSandbox(4, a), StartSandbox(5, b), StartSandbox(6, a)]


def short(plan: Plan, of: Need, has_written: bool = False) -> None:
    """One warm sandbox in which leases may queue, of a function known to be short; lease 2 runs there."""
    warm(plan, 1, of)
    plan.on(SandboxQueues(1), 0)
    plan.on(LeaseAsked(2, of), 0)
    plan.on(LeaseReturned(2, True, run_s=0.00001, has_written=has_written), 0)
    plan.on(LeaseAsked(2, of), 0)


def test_short_calls_queue_behind_the_one_that_runs_up_to_a_depth() -> None:
    plan, a = Plan(1000, "fixed"), need(depth=2)
    short(plan, a)
    for lease in (3, 4):
        assert plan.on(LeaseAsked(lease, a), 0) == [GrantLease(lease, 1, Source.WARM, runs_at_once=False)]
    assert plan.on(LeaseAsked(5, a), 0) == []
    assert plan.on(LeaseReturned(2, True, run_s=0.00001), 0) == [
        GrantLease(5, 1, Source.WARM, runs_at_once=False)
    ]


def test_calls_that_write_output_never_queue() -> None:
    plan, a = Plan(1000, "fixed"), need(depth=2)
    short(plan, a, has_written=True)
    assert plan.on(LeaseAsked(3, a), 0) == []


def test_a_sandbox_that_stalled_is_not_queued_in() -> None:
    plan, a = Plan(1000, "fixed"), need(depth=2)
    short(plan, a)
    plan.on(LeaseAsked(3, a), 0)
    plan.on(SandboxStalled(1), 0.005)
    plan.on(LeaseReturned(3, True), 0.005)
    assert plan.on(LeaseAsked(4, a), 0.005) == []
    plan.on(Tick(), 0.005)
    assert plan.on(Tick(), 0.005 + STUCK_S) == [StartSandbox(2, a)]


def test_a_shared_sandbox_serves_as_many_as_it_has_places() -> None:
    plan, a = Plan(1000, "fixed"), need(reuse=Reuse.SANDBOX, places=2)
    plan.on(LeaseAsked(1, a), 0)
    assert plan.on(LeaseAsked(2, a), 0) == []
    granted = plan.on(SandboxReady(1), 0)
    assert granted == [GrantLease(1, 1, Source.FRESH), GrantLease(2, 1, Source.WARM)]
    assert plan.on(LeaseAsked(3, a), 0) == [StartSandbox(2, a)]


def test_a_function_never_has_more_calls_running_than_it_allows() -> None:
    plan, a = Plan(1000, "fixed"), need(at_most=1)
    plan.on(LeaseAsked(1, a), 0)
    plan.on(SandboxReady(1), 0)
    assert plan.on(LeaseAsked(2, a), 0) == []
    assert plan.on(LeaseReturned(1, True), 9) == [GrantLease(2, 1, Source.WARM)]


def test_a_full_node_evicts_only_if_that_makes_room() -> None:
    plan = Plan(200, "fixed")
    warm(plan, 1, need("a"))
    assert plan.on(LeaseAsked(2, need("big", memory_mb=150)), 1) == [DestroySandbox(1)]
    assert plan.on(SandboxGone(1), 1) == [StartSandbox(2, need("big", memory_mb=150))]


def test_a_full_node_leaves_idle_sandboxes_alone_when_they_are_not_enough() -> None:
    plan = Plan(200, "fixed")
    plan.on(LeaseAsked(1, need("busy")), 0)
    plan.on(SandboxReady(1), 0)
    warm(plan, 2, need("a", memory_mb=50))
    assert plan.on(LeaseAsked(3, need("big", memory_mb=150)), 1) == []


def test_the_one_at_the_head_of_the_line_is_not_starved_by_smaller_ones_behind() -> None:
    plan, big, small = Plan(200, "fixed"), need("big", memory_mb=200), need("small", memory_mb=100)
    plan.on(LeaseAsked(1, small), 0)
    plan.on(SandboxReady(1), 0)
    assert plan.on(LeaseAsked(2, big), 0) == []
    assert plan.on(LeaseAsked(3, need("other", memory_mb=100)), 0) == []
    plan.on(LeaseReturned(1, False), 0)
    assert plan.on(SandboxGone(1), 0) == [StartSandbox(2, big)]


def test_a_function_larger_than_the_whole_budget_is_refused_for_good() -> None:
    [refusal] = Plan(100, "fixed").on(LeaseAsked(1, need(memory_mb=101)), 0)
    assert isinstance(refusal, RefuseLease)
    assert refusal.is_for_good
    assert "101" in refusal.reason


def test_a_sandbox_that_cannot_start_refuses_the_lease_that_waited_for_it() -> None:
    plan, a = Plan(1000, "fixed"), need()
    plan.on(LeaseAsked(1, a), 0)
    actions = plan.on(SandboxEnded(1, "no kernel"), 0)
    assert actions == [RefuseLease(1, "no kernel"), DestroySandbox(1)]


def test_idle_sandboxes_end_after_their_keeping_time() -> None:
    plan, a = Plan(1000, "fixed"), need()
    warm(plan, 1, a)
    assert plan.on(Tick(), 9.9) == []
    assert plan.on(Tick(), 10.1) == [DestroySandbox(1)]


def test_a_retired_revision_is_destroyed_when_idle_and_after_its_call_when_busy() -> None:
    plan, a = Plan(1000, "fixed"), need()
    warm(plan, 1, a)
    plan.on(LeaseAsked(2, a), 0)
    plan.on(LeaseAsked(3, a), 0)
    plan.on(SandboxReady(2), 0)
    plan.on(LeaseReturned(3, True), 0)
    assert plan.on(Retired(revision="a"), 0) == [DestroySandbox(2)]
    assert plan.on(LeaseReturned(2, True), 0) == [DestroySandbox(1)]


def test_prewarming_keeps_sandboxes_waiting_for_the_most_recently_used() -> None:
    plan, a, b = Plan(1000, "fixed"), need("a", reuse=Reuse.NONE), need("b", reuse=Reuse.NONE)
    plan.on(PrewarmChanged(1, 2), 0)
    plan.on(LeaseAsked(1, a), 0)
    granted, *started = plan.on(SandboxReady(1), 1)
    assert granted == GrantLease(1, 1, Source.FRESH)
    assert started == [StartSandbox(2, a), StartSandbox(3, a)]
    plan.on(SandboxReady(2), 1)
    plan.on(SandboxReady(3), 1)
    assert plan.on(LeaseAsked(2, a), 2)[0] == GrantLease(2, 3, Source.POOLED)
    ends = plan.on(PrewarmChanged(0, 0), 3)
    assert DestroySandbox(2) in ends
    assert plan.on(LeaseAsked(3, b), 4) == [StartSandbox(5, b)]


def visit(plan: Plan, lease: int, of: Need, now: float) -> list[Action]:
    """One call that is over at once; what the plan did when it came."""
    actions = plan.on(LeaseAsked(lease, of), now)
    for start in [action for action in actions if isinstance(action, StartSandbox)]:
        plan.on(SandboxReady(start.sandbox), now)
    plan.on(LeaseReturned(lease, True), now)
    return actions


def test_a_fixed_policy_ends_what_was_idle_for_its_time_and_the_nodes_bound_is_stronger() -> None:
    for keep_s, ends_at in ((None, FIXED_KEEP_S), (5.0, 5.0)):
        plan = Plan(1000, "fixed", keep_s)
        warm(plan, 1, expected())
        assert plan.on(Tick(), ends_at - 0.5) == []
        assert plan.on(Tick(), ends_at + 0.5) == [DestroySandbox(1)]


@pytest.mark.parametrize("policy", ["lru", "greedy_dual"])
def test_where_room_is_not_needed_these_policies_keep(policy: str) -> None:
    plan = Plan(1000, policy)
    warm(plan, 1, expected())
    assert plan.on(Tick(), FORGET_S - 1) == []
    assert plan.on(Tick(), FORGET_S + 1) == [DestroySandbox(1)]


@pytest.mark.parametrize("policy", ["fixed", "lru"])
def test_the_longest_idle_goes_first(policy: str) -> None:
    plan = Plan(200, policy)
    for lease, name in ((1, "a"), (2, "b")):
        warm(plan, lease, expected(name), now=float(lease))
    visit(plan, 3, expected("a"), 3.0)
    assert plan.on(LeaseAsked(4, expected("c")), 4.0) == [DestroySandbox(2)]


def test_greedy_dual_keeps_what_is_dear_to_start_until_it_is_too_old() -> None:
    plan = Plan(200, "greedy_dual")
    warm(plan, 1, expected("dear"))
    plan.on(SandboxLoaded(1, 1.0), 0)
    gone = []
    for lease in range(2, 2000):
        actions = plan.on(LeaseAsked(lease, expected(f"cheap{lease}")), float(lease))
        ended = [action.sandbox for action in actions if isinstance(action, DestroySandbox)]
        gone += ended
        for sandbox in ended:
            actions += plan.on(SandboxGone(sandbox), float(lease))
        [sandbox] = [action.sandbox for action in actions if isinstance(action, StartSandbox)]
        plan.on(SandboxReady(sandbox), float(lease))
        plan.on(LeaseReturned(lease, True), float(lease))
    assert gone[:100] == list(range(2, 102)), "what is cheap goes, the oldest first"
    assert 1 in gone, "but nothing stays for ever"


def with_habit(every_s: float) -> tuple[Plan, Need, float]:
    """A plan that has seen one function called at a steady pace; with the time of the last call."""
    plan, a = Plan(1000, "histogram"), expected()
    for lease in range(1, 21):
        plan.on(Tick(), lease * every_s - 1)
        visit(plan, lease, a, lease * every_s)
    return plan, a, 20 * every_s


def test_a_histogram_starts_a_sandbox_before_the_call_it_expects_and_ends_it_in_between() -> None:
    plan, a, last = with_habit(300.0)
    [end] = plan.on(Tick(), last + 1)
    assert isinstance(end, DestroySandbox)
    plan.on(SandboxGone(end.sandbox), last + 1)
    assert plan.on(Tick(), last + 150) == []
    [start] = plan.on(Tick(), last + 250)
    assert isinstance(start, StartSandbox)
    plan.on(SandboxReady(start.sandbox), last + 250)
    assert plan.on(LeaseAsked(99, a), last + 300) == [GrantLease(99, start.sandbox, Source.POOLED)]


def test_what_was_expected_and_did_not_come_ends() -> None:
    plan, _, last = with_habit(300.0)
    for end in plan.on(Tick(), last + 1):
        assert isinstance(end, DestroySandbox)
        plan.on(SandboxGone(end.sandbox), last + 1)
    [start] = plan.on(Tick(), last + 250)
    assert isinstance(start, StartSandbox)
    plan.on(SandboxReady(start.sandbox), last + 250)
    assert plan.on(Tick(), last + 600) == [DestroySandbox(start.sandbox)]


def ended_after(plan: Plan, last: float) -> None:
    """The sandbox of `with_habit` is ended and gone: nobody is expected for a while."""
    for end in plan.on(Tick(), last + 1):
        assert isinstance(end, DestroySandbox)
        plan.on(SandboxGone(end.sandbox), last + 1)


@pytest.mark.parametrize(("other_mb", "starts"), [(450, 1), (451, 0)])
def test_what_is_expected_leaves_the_room_that_a_call_may_need(other_mb: int, starts: int) -> None:
    plan, _, last = with_habit(300.0)
    ended_after(plan, last)
    warm(plan, 100, msgspec.structs.replace(need("other", memory_mb=other_mb), keep_s=None), last + 2)
    assert len(plan.on(Tick(), last + 250)) == starts


def test_nothing_is_started_for_the_future_while_somebody_waits() -> None:
    plan, _, last = with_habit(300.0)
    ended_after(plan, last)
    one = need("one", at_most=1)
    plan.on(LeaseAsked(100, one), last + 2)
    plan.on(LeaseAsked(101, one), last + 2)
    assert plan.on(Tick(), last + 250) == []


# Fairness


def flooded(plan: Plan, of: Need, sandboxes: int, now: float = 0.0) -> list[int]:
    """As many sandboxes of one function, all busy, and twice as many leases waiting; those held."""
    for lease in range(1, 3 * sandboxes + 1):
        plan.on(LeaseAsked(lease, of), now)
    for sandbox in range(1, sandboxes + 1):
        plan.on(SandboxReady(sandbox), now)
    assert plan.snapshot().busy == sandboxes
    return list(range(1, sandboxes + 1))


def test_a_flood_gives_room_to_another_function_as_soon_as_a_call_of_it_ends() -> None:
    plan, b = Plan(300, "fixed"), need("b")
    flooded(plan, need("a"), 3)
    assert plan.on(LeaseAsked(100, b), QUANTUM_S) == []
    assert plan.on(LeaseReturned(1, True), QUANTUM_S) == [DestroySandbox(1)]
    assert plan.on(SandboxGone(1), QUANTUM_S) == [StartSandbox(4, b)]


def test_a_sandbox_serves_for_a_while_before_it_gives_its_room() -> None:
    plan = Plan(300, "fixed")
    flooded(plan, need("a"), 3)
    plan.on(LeaseAsked(100, need("b")), 0.001)
    assert plan.on(LeaseReturned(1, True), QUANTUM_S * 0.9) == [GrantLease(4, 1, Source.WARM)]


def test_of_two_that_hold_the_same_none_gives_to_the_other() -> None:
    plan, a, b = Plan(200, "fixed"), need("a"), need("b")
    for lease, which in ((1, a), (2, b)):
        plan.on(LeaseAsked(lease, which), 0)
        plan.on(SandboxReady(lease), 0)
    plan.on(LeaseAsked(3, a), 0.1)
    plan.on(LeaseAsked(4, b), 0.1)
    assert plan.on(LeaseReturned(1, True), 0.1 + QUANTUM_S) == [GrantLease(3, 1, Source.WARM)]


def test_a_large_function_gets_its_room_from_a_flood_of_small_ones() -> None:
    plan, big = Plan(300, "fixed"), need("big", memory_mb=300)
    flooded(plan, need("a"), 3)
    plan.on(LeaseAsked(100, big), 1.0)
    later = 1.0 + HEAD_S
    assert plan.on(LeaseReturned(1, True), later) == []
    assert plan.on(LeaseReturned(2, True), later) == []
    assert plan.on(LeaseReturned(3, True), later) == [DestroySandbox(number) for number in (1, 2, 3)]
    for sandbox in (1, 2):
        assert plan.on(SandboxGone(sandbox), later) == []
    assert plan.on(SandboxGone(3), later) == [StartSandbox(4, big)]


def test_room_that_was_kept_for_one_who_leaves_serves_its_own_line_again() -> None:
    plan, big = Plan(300, "fixed"), need("big", memory_mb=300)
    flooded(plan, need("a"), 3)
    plan.on(LeaseAsked(100, big), 1.0)
    assert plan.on(LeaseReturned(1, True), 1.0 + HEAD_S) == []
    assert plan.on(LeaseWithdrawn(100), 1.0 + HEAD_S) == [GrantLease(4, 1, Source.WARM)]


def test_a_flood_does_not_stand_before_others_in_the_making_of_sandboxes() -> None:
    plan, a, b = Plan(10_000, "fixed", starts_at_once=2), need("a"), need("b")
    started = [plan.on(LeaseAsked(lease, a), 0) for lease in range(1, 21)]
    assert sum(map(len, started)) == 2
    assert plan.on(LeaseAsked(100, b), 0) == []
    assert plan.on(SandboxReady(1), 0) == [GrantLease(1, 1, Source.FRESH), StartSandbox(3, b)]


def test_a_start_that_hangs_does_not_keep_others_from_starting() -> None:
    plan, a, b = Plan(10_000, "fixed", starts_at_once=1), need("a"), need("b")
    plan.on(LeaseAsked(1, a), 0)
    assert plan.on(LeaseAsked(2, b), 0) == []
    assert plan.on(Tick(), SLOW_START_S) == [StartSandbox(2, b)]


NEEDS = [
    need("a"),
    expected("x"),
    msgspec.structs.replace(expected("y"), memory_mb=150),
    need("b", memory_mb=250),
    need("c", reuse=Reuse.NONE, memory_mb=70),
    need("d", reuse=Reuse.SANDBOX, places=3),
    need("e", at_most=2, memory_mb=40),
    need("f", memory_mb=600),
    need("g", memory_mb=60, depth=3),
    need("h", memory_mb=50, can_freeze=True, packages="p"),
    need("i", memory_mb=30, reuse=Reuse.NONE, can_freeze=True, packages="p"),
    telling("k"),
    telling("l", memory_mb=200, at_most=1),
    msgspec.structs.replace(telling("n", memory_mb=80), can_freeze=True),
    telling("m", memory_mb=60, depth=3),
]
BUDGET_MB = 500
SPARE_MB = 150
ZYGOTES_MB = 150
STARTS = 3


def test_spares_count_and_go_before_anything_else() -> None:
    plan, a, b = Plan(1000, "fixed", spare_mb=100), need("a", memory_mb=600), need("b", memory_mb=350)
    warm(plan, 1, a)
    plan.on(SparesChanged(25, 100), 1)
    assert (plan.snapshot().spares, plan.snapshot().committed_mb) == (25, 700)
    assert plan.on(LeaseAsked(2, b), 2) == [BoundSpares(50)]
    assert plan.on(SparesChanged(20, 80), 2) == []
    assert plan.on(SparesChanged(12, 48), 2) == [StartSandbox(2, b)]
    assert plan.snapshot().idle == 1


def test_idle_ones_go_only_where_spares_do_not_suffice() -> None:
    plan, a, b = Plan(1000, "fixed", spare_mb=100), need("a", memory_mb=600), need("b", memory_mb=500)
    idle = warm(plan, 1, a)
    plan.on(SparesChanged(25, 100), 1)
    assert plan.on(LeaseAsked(2, b), 2) == [DestroySandbox(idle), BoundSpares(0)]
    assert plan.on(SandboxGone(idle), 2) == [StartSandbox(2, b), BoundSpares(100)]


def test_spares_have_what_nobody_else_has_up_to_their_share() -> None:
    plan, a = Plan(1000, "fixed", spare_mb=100), need("a", memory_mb=950)
    assert plan.on(LeaseAsked(1, a), 0) == [StartSandbox(1, a), BoundSpares(50)]
    plan.on(SandboxReady(1), 0)
    plan.on(LeaseReturned(1, False), 0)
    assert plan.on(SandboxGone(1), 0) == [BoundSpares(100)]


class Histories(RuleBasedStateMachine):
    """Any order of events that the pool could send, checked after each (invariant 4)."""

    policy = "fixed"

    def __init__(self) -> None:
        super().__init__()
        self.plan, self.twin = (
            Plan(
                BUDGET_MB,
                self.policy,
                starts_at_once=STARTS,
                spare_mb=SPARE_MB,
                zygotes_mb=ZYGOTES_MB,
            )
            for _ in range(2)
        )
        self.spare_mb, self.bound_mb = 0, SPARE_MB
        self.now = 0.0
        self.leases = 0
        self.waiting: dict[int, Need] = {}
        self.held: dict[int, int] = {}
        self.memory: dict[int, int] = {}
        self.need_of: dict[int, Need] = {}
        self.starting: set[int] = set()
        self.up: set[int] = set()
        self.dying: set[int] = set()
        self.making: dict[int, int] = {}
        self.zygotes: dict[int, int] = {}
        self.dropped: set[int] = set()
        self.source: dict[int, int] = {}
        self.lineages = [1]
        """Those that sandboxes can be had of."""
        self.lineage_of: dict[int, int] = {}
        self.asked: set[int] = set()
        """Those of whom the plan wants to know what they hold."""

    def send(self, event: Event) -> None:
        actions = self.plan.on(event, self.now)
        assert actions == self.twin.on(event, self.now), "same events, same actions"
        idle = self.up - set(self.held.values())
        for action in actions:
            self.obey(action)
        is_for_room = isinstance(
            event,
            LeaseAsked
            | LeaseWithdrawn
            | SandboxReady
            | SandboxGone
            | SandboxLoaded
            | ZygoteReady
            | ZygoteFailed
            | LineageOver
            | SandboxMeasured,
        )
        if is_for_room and idle & self.dying - {getattr(event, "sandbox", 0)}:
            self.check_that_it_makes_room()

    def check_that_it_makes_room(self) -> None:
        """An idle one was just ended: when all that die are gone, somebody in line can start."""
        left = sum(memory for sandbox, memory in self.memory.items() if sandbox not in self.dying)
        users = {self.source.get(sandbox) for sandbox in self.memory if sandbox not in self.dying}
        going = self.going() - users
        left += sum(memory for zygote, memory in self.kept().items() if zygote not in going)
        assert any(left + self.room_for(wanted) <= BUDGET_MB for wanted in self.waiting.values())

    def room_for(self, wanted: Need) -> int:
        """What a start takes, or the sandbox that holds most of those that are up."""
        held = [self.memory[one] for one in self.up if self.need_of[one].key == wanted.key]
        return wanted.memory_mb - max(held, default=0)

    def obey(self, action: Action) -> None:
        match action:
            case StartSandbox(sandbox=sandbox, need=wanted, zygote=zygote):
                if zygote:
                    assert zygote in self.zygotes, "started from what is not there"
                    assert self.lineage_of[zygote] in self.lineages, "started from what nothing can become"
                    self.source[sandbox] = zygote
                assert sandbox not in self.memory
                is_waited_for = any(one.key == wanted.key for one in self.waiting.values())
                assert is_waited_for or not self.waiting, "started for the future while somebody waits"
                self.memory[sandbox] = wanted.memory_mb
                self.need_of[sandbox] = wanted
                self.starting.add(sandbox)
            case GrantLease(lease=lease, sandbox=sandbox):
                assert sandbox in self.up, "granted on a sandbox that is not up"
                asked = self.waiting.pop(lease)
                assert (asked.revision, asked.reuse) == (
                    self.need_of[sandbox].revision,
                    self.need_of[sandbox].reuse,
                )
                self.held[lease] = sandbox
                self.memory[sandbox] = asked.memory_mb
            case RefuseLease(lease=lease):
                del self.waiting[lease]
            case BoundSpares(memory_mb=memory_mb):
                self.bound_mb = memory_mb
            case DestroySandbox(sandbox=sandbox):
                assert sandbox not in self.dying, "destroyed twice"
                self.starting.discard(sandbox)
                self.up.discard(sandbox)
                self.dying.add(sandbox)
                self.asked.discard(sandbox)
            case MakeZygote(zygote=zygote, need=wanted):
                assert not self.waiting and wanted.can_freeze
                self.making[zygote] = 2 * wanted.memory_mb
            case DropZygote(zygote=zygote):
                assert zygote not in self.dropped, "dropped twice"
                users = [sandbox for sandbox, source in self.source.items() if source == zygote]
                assert not any(sandbox in self.memory for sandbox in users), "dropped under its users"
                if self.zygotes.pop(zygote, None) is None:
                    assert zygote in self.making
                    self.dropped.add(zygote)
            case ReleaseLineage(lineage=lineage):
                assert lineage != max(self.lineages)
                starting = [self.source[one] for one in self.starting if one in self.source]
                assert lineage not in [self.lineage_of[zygote] for zygote in starting], "released too early"
                self.lineages.remove(lineage)
            case MeasureSandbox(sandbox=sandbox):
                assert sandbox in self.up - set(self.held.values()), "measured one that is not idle"
                assert self.need_of[sandbox].tells_memory
                self.asked.add(sandbox)

    def kept(self) -> dict[int, int]:
        return self.making | self.zygotes

    def going(self) -> set[int]:
        """Zygotes that the plan has given up and that are not gone yet."""
        return {number for number, one in self.plan._brood.zygotes.items() if one.is_retired}

    @precondition(lambda self: self.making)
    @rule(data=st.data(), holds=st.sampled_from([1, 2, 3]))
    def hatch(self, data: st.DataObject, holds: int) -> None:
        zygote = data.draw(st.sampled_from(sorted(self.making)))
        self.zygotes[zygote] = self.making.pop(zygote) // holds
        self.dropped.discard(zygote)
        self.lineage_of[zygote] = data.draw(st.sampled_from(self.lineages))
        self.send(ZygoteReady(zygote, self.zygotes[zygote], self.lineage_of[zygote]))

    @rule()
    def renew(self) -> None:
        """The newest lineage ages, and the one before it, if it is still there, is over."""
        aged = max(self.lineages)
        for over in self.lineages[:-1]:
            self.lineages.remove(over)
            self.send(LineageOver(over))
        self.lineages.append(aged + 1)
        self.send(LineageAged(aged))

    @precondition(lambda self: self.making)
    @rule(data=st.data(), flaw=st.sampled_from(Flaw))
    def fail_to_hatch(self, data: st.DataObject, flaw: Flaw) -> None:
        zygote = data.draw(st.sampled_from(sorted(self.making)))
        del self.making[zygote]
        self.send(ZygoteFailed(zygote, flaw))

    @rule(which=st.sampled_from(NEEDS))
    def ask(self, which: Need) -> None:
        self.leases += 1
        self.waiting[self.leases] = which
        self.send(LeaseAsked(self.leases, which))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[lease]
        self.send(LeaseWithdrawn(lease))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        is_healthy=st.booleans(),
        run_s=st.sampled_from([None, 0.00001, 0.1]),
        cpu_s=st.sampled_from([0.0, 10.0]),
    )
    def give_back(self, data: st.DataObject, is_healthy: bool, run_s: float | None, cpu_s: float) -> None:
        lease = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[lease]
        self.send(LeaseReturned(lease, is_healthy, run_s, cpu_s))

    @precondition(lambda self: self.up)
    @rule(data=st.data(), stalls=st.booleans())
    def queue_or_stall(self, data: st.DataObject, stalls: bool) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.up)))
        self.send(SandboxStalled(sandbox) if stalls else SandboxQueues(sandbox))

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(sandbox)
        self.up.add(sandbox)
        self.send(SandboxReady(sandbox))

    @precondition(lambda self: self.starting or self.up)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.starting | self.up)))
        self.send(SandboxEnded(sandbox, "died" if sandbox in self.starting else ""))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), share=st.sampled_from([0.01, 0.1, 0.5, 1.0, None]))
    def tell(self, data: st.DataObject, share: float | None) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.asked)))
        self.tell_that_it_holds(sandbox, share)

    def tell_that_it_holds(self, sandbox: int, share: float | None) -> None:
        self.asked.discard(sandbox)
        limit, before = self.need_of[sandbox].memory_mb, self.memory[sandbox]
        is_idle = sandbox in self.up - set(self.held.values())
        if is_idle:
            self.memory[sandbox] = limit if share is None else int(limit * share)
        self.send(SandboxMeasured(sandbox, None if share is None else int(limit * share)))
        if sandbox in self.dying:
            self.memory[sandbox] = min(
                before, self.memory[sandbox]
            )  # one that grew by itself is ended for it

    @precondition(lambda self: self.dying)
    @rule(data=st.data())
    def be_gone(self, data: st.DataObject) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.dying)))
        self.dying.discard(sandbox)
        del self.memory[sandbox]
        self.send(SandboxGone(sandbox))

    @rule(which=st.sampled_from(NEEDS))
    def retire(self, which: Need) -> None:
        self.send(Retired(revision=which.revision))

    @rule()
    def clear(self) -> None:
        self.send(Retired(prefix="front/"))

    @rule(functions=st.integers(-1, 3), each=st.integers(0, 3))
    def prewarm(self, functions: int, each: int) -> None:
        self.send(PrewarmChanged(functions, each))

    @precondition(lambda self: self.up)
    @rule(
        data=st.data(),
        took_s=st.sampled_from([0.001, 1.0]),
        how=st.sampled_from(["afresh", "thawed", "partly"]),
        imports=st.sampled_from([frozenset(), frozenset("p"), frozenset("pq")]),
    )
    def load(self, data: st.DataObject, took_s: float, how: str, imports: frozenset[str]) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.up)))
        how = how if sandbox in self.source else "afresh"
        self.send(SandboxLoaded(sandbox, took_s, how == "thawed", how == "partly", imports))

    @rule(data=st.data())
    def change_spares(self, data: st.DataObject) -> None:
        """As far as they are bound; those above it go one after the other."""
        most = max(self.spare_mb, self.bound_mb)
        self.spare_mb = data.draw(st.integers(0, most)) if most else 0
        self.send(SparesChanged(self.spare_mb, self.spare_mb))

    @rule(passed=st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0, 11.0, 100.0, 1000.0]))
    def tick(self, passed: float) -> None:
        self.now += passed
        self.send(Tick())

    @invariant()
    def memory_is_within_the_budget(self) -> None:
        """Whoever is at work may take its limit, and who is idle has what it told."""
        held_mb = sum(self.memory.values()) + sum(self.kept().values()) + self.spare_mb
        assert held_mb <= self.plan.snapshot().committed_mb <= BUDGET_MB
        if not any(self.need_of[sandbox].tells_memory for sandbox in self.memory):
            assert self.plan.snapshot().committed_mb == held_mb
        assert sum(self.kept().values()) <= ZYGOTES_MB

    @invariant()
    def places_are_not_oversold(self) -> None:
        for sandbox, leases in Counter(self.held.values()).items():
            assert leases <= self.need_of[sandbox].places + self.need_of[sandbox].depth

    @invariant()
    def nothing_waits_that_nothing_will_wake(self) -> None:
        assert self.plan.snapshot().waiting == len(self.waiting)

    def teardown(self) -> None:
        """However the history went: let every event happen that must, and nobody is left waiting."""
        for _ in range(10_000):
            if not self.waiting:
                return
            self.step_towards_the_end()
        raise AssertionError(f"{len(self.waiting)} leases wait for ever")

    def step_towards_the_end(self) -> None:
        if self.asked:
            self.tell_that_it_holds(min(self.asked), 1.0)
        elif self.spare_mb > self.bound_mb:
            self.spare_mb = self.bound_mb
            self.send(SparesChanged(self.spare_mb, self.spare_mb))
        elif self.dying:
            sandbox = min(self.dying)
            self.dying.discard(sandbox)
            del self.memory[sandbox]
            self.send(SandboxGone(sandbox))
        elif self.making:
            zygote = min(self.making)
            del self.making[zygote]
            self.send(ZygoteFailed(zygote))
        elif self.starting:
            sandbox = min(self.starting)
            self.starting.discard(sandbox)
            self.up.add(sandbox)
            self.send(SandboxReady(sandbox))
        elif self.held:
            lease = min(self.held)
            del self.held[lease]
            self.send(LeaseReturned(lease, True))
        else:
            self.now += 1.0
            self.send(Tick())


class HistoriesOfLru(Histories):
    policy = "lru"


class HistoriesOfGreedyDual(Histories):
    policy = "greedy_dual"


class HistoriesOfHistogram(Histories):
    policy = "histogram"


TestHistories = Histories.TestCase
TestHistoriesOfLru = HistoriesOfLru.TestCase
TestHistoriesOfGreedyDual = HistoriesOfGreedyDual.TestCase
TestHistoriesOfHistogram = HistoriesOfHistogram.TestCase
ALL = (TestHistories, TestHistoriesOfLru, TestHistoriesOfGreedyDual, TestHistoriesOfHistogram)
for one in ALL:
    one.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_every_policy_has_its_random_histories_and_its_name_in_the_settings() -> None:
    tried = {
        Histories.policy,
        HistoriesOfLru.policy,
        HistoriesOfGreedyDual.policy,
        HistoriesOfHistogram.policy,
    }
    assert tried == set(POLICIES) == set(get_args(Keeping))
