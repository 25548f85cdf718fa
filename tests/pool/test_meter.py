"""What a call used and met, from counters of a sandbox that moves only when the test says so."""

from __future__ import annotations

import errno
import time
from typing import Any, cast

import pytest

from stoker.pool.meter import SAMPLE_S, Meter
from stoker.sandboxes.contract import Sandbox
from stoker.types import MEBIBYTE, Hits, LimitHit, Usage

MS = 1_000_000
LONG_MS = 1000 * SAMPLE_S


class Counters:
    """What a sandbox counts."""

    def __init__(self) -> None:
        self.cpu_ms, self.peak, self.sent = 30.0, MEBIBYTE, None
        self.met: dict[str, Any] = {}
        self.looks = 0

    def usage(self) -> Usage:
        self.looks += 1
        return Usage(
            cpu_ms=self.cpu_ms,
            memory_peak_bytes=self.peak,
            network_in_bytes=self.sent,
            network_out_bytes=self.sent,
        )

    def hits(self) -> Hits:
        return Hits(**self.met)


@pytest.fixture
def counters() -> Counters:
    return Counters()


def meter_of(counters: Counters, is_exact: bool = False) -> Meter:
    return Meter(cast("Sandbox", counters), is_exact)


def warm(counters: Counters) -> Meter:
    """A meter whose first call has ended well, a moment ago."""
    meter = meter_of(counters)
    meter.begin_first()
    meter.end(MS, 1.0, is_well=True)
    counters.looks = 0
    return meter


def test_short_calls_share_a_reading(counters: Counters) -> None:
    meter = warm(counters)
    for _ in range(100):
        meter.begin(time.monotonic())
        assert meter.end(2 * MS, 2.0, is_well=True) == Usage(cpu_ms=2.0, memory_peak_bytes=MEBIBYTE)
    assert counters.looks <= 2  # however slow this machine is just now


def test_a_call_that_ran_long_is_read_and_is_told_what_is_its_own(counters: Counters) -> None:
    meter = warm(counters)
    meter.begin(time.monotonic())
    counters.cpu_ms += 200
    counters.peak = 5 * MEBIBYTE
    used = meter.end(70 * MS, LONG_MS, is_well=True)
    assert used == Usage(cpu_ms=200.0, memory_peak_bytes=5 * MEBIBYTE)


def test_what_short_calls_told_since_the_reading_is_not_the_next_ones(counters: Counters) -> None:
    meter = warm(counters)
    now = time.monotonic()
    for _ in range(3):
        meter.begin(now)
        counters.cpu_ms += 4
        meter.end(4 * MS, 4.0, is_well=True)
    meter.begin(now)
    counters.cpu_ms += 100
    assert meter.end(0, LONG_MS, is_well=True).cpu_ms == pytest.approx(100)


def test_loading_is_not_counted_as_the_first_calls_time(counters: Counters) -> None:
    meter = meter_of(counters)
    counters.cpu_ms = 500
    meter.begin_first()
    counters.cpu_ms += 80
    assert meter.spent_s() == pytest.approx(0.08)
    assert meter.end(-1, LONG_MS, is_well=False).cpu_ms == pytest.approx(80)


def test_a_bad_end_is_always_read(counters: Counters) -> None:
    meter = warm(counters)
    meter.begin(time.monotonic())
    counters.met["forks_refused"] = 3
    meter.end(MS, 1.0, is_well=False)
    assert meter.met() is LimitHit.PIDS


@pytest.mark.parametrize(
    ("met", "limit"),
    [
        ({"oom_kills": 1}, LimitHit.MEMORY),
        ({"forks_refused": 1}, LimitHit.PIDS),
        ({"is_disk_full": True}, LimitHit.DISK),
        ({}, None),
    ],
)
def test_a_limit_that_was_met_before_the_call_is_not_the_calls(
    counters: Counters, met: dict[str, Any], limit: LimitHit | None
) -> None:
    meter = warm(counters)
    told = []
    for _ in range(2):
        meter.begin(time.monotonic())
        counters.met = met
        meter.end(MS, 1.0, is_well=False)
        told.append(meter.met())
    assert told == [limit, None]


def test_of_two_calls_that_may_have_met_a_limit_none_is_said_to(counters: Counters) -> None:
    meter = warm(counters)
    now = time.monotonic()
    meter.begin(now)
    meter.end(MS, 1.0, is_well=True)
    if not meter.was_read:
        meter.begin(now)
        counters.met["forks_refused"] = 1
        meter.end(MS, 1.0, is_well=False)
        assert meter.met() is None
        assert meter.met(errno.EAGAIN) is LimitHit.PIDS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_an_error_of_want_of_space_is_the_disks_limit(counters: Counters, number: int) -> None:
    meter = warm(counters)
    meter.begin(time.monotonic())
    meter.end(MS, 1.0, is_well=False)
    assert meter.met(number) is LimitHit.DISK
    assert meter.met(errno.ENOENT) is None


def test_calls_beside_each_other_are_told_only_what_they_told(counters: Counters) -> None:
    meter = warm(counters)
    meter.begin(time.monotonic())
    meter.join()
    counters.cpu_ms += 1000
    counters.met["oom_kills"] = 1
    assert meter.spent_s() == 0
    assert meter.end(7 * MS, LONG_MS, is_well=False) == Usage(cpu_ms=7.0, memory_peak_bytes=MEBIBYTE)
    assert meter.met() is None
    meter.begin(time.monotonic())
    counters.cpu_ms += 90
    assert meter.end(7 * MS, LONG_MS, is_well=True).cpu_ms == pytest.approx(90)


def test_a_kill_for_memory_explains_one_end(counters: Counters) -> None:
    meter = warm(counters)
    meter.begin(time.monotonic())
    meter.join()
    counters.met["oom_kills"] = 2
    assert [meter.was_killed_for_memory(0) for _ in range(3)] == [True, True, False]
    assert not meter.was_killed_for_memory(2)
    counters.met["oom_kills"] = 3
    assert meter.was_killed_for_memory(2)


def test_what_went_over_the_network_is_the_difference(counters: Counters) -> None:
    counters.sent = 1000
    meter = meter_of(counters, is_exact=True)
    meter.begin_first()
    counters.sent = 1500
    assert meter.end(MS, 1.0, is_well=True).network_out_bytes == 500
    meter.begin(time.monotonic())
    assert meter.end(MS, 1.0, is_well=True).network_in_bytes == 0


def test_a_sandbox_that_counts_nothing_is_told_by_its_process_alone(counters: Counters) -> None:
    counters.cpu_ms = counters.peak = None  # type: ignore[assignment]
    meter = warm(counters)
    meter.begin(time.monotonic())
    assert meter.spent_s() == 0
    assert meter.end(3 * MS, LONG_MS, is_well=True) == Usage(cpu_ms=3.0)
    assert meter.end(-1, LONG_MS, is_well=False) == Usage()


def test_a_meter_can_be_printed(counters: Counters) -> None:
    assert "Meter" in repr(meter_of(counters))
