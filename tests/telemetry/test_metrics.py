from __future__ import annotations

import json

from stoker.errors import TooBusy
from stoker.telemetry.metrics import Metrics
from stoker.types import Outcome, Phases, Source, Status


def outcome(status: Status = Status.OK, **more: object) -> Outcome:
    fields = {"phases": Phases(admit=1, run=2.5), "sandbox": "s", **more}
    return Outcome(invocation="0" * 32, function="functions/f", status=status, **fields)  # type: ignore[arg-type]


def test_every_end_of_a_call_is_counted_once() -> None:
    metrics = Metrics()
    metrics.settled(outcome(source=Source.WARM))
    metrics.settled(outcome(Status.TIMED_OUT, built=True))
    metrics.settled(outcome(Status.CANCELLED, sandbox=""))
    metrics.settled(TooBusy())
    assert metrics.snapshot() == {
        "calls": 4,
        "built": 1,
        "outcomes": {status.value: 0 for status in Status} | {"ok": 1, "timed_out": 1, "cancelled": 1},
        "sources": {"fresh": 1, "pooled": 0, "warm": 1},
        "node_errors": {"too_busy": 1},
        "spent_ms": {"admit": 3.0, "code": 0.0, "sandbox": 0.0, "init": 0.0, "run": 7.5},
    }


def test_a_snapshot_is_plain_json_and_does_not_change() -> None:
    metrics = Metrics()
    before = metrics.snapshot()
    metrics.settled(outcome())
    assert json.loads(json.dumps(before)) == Metrics().snapshot()
