"""Counters of one node: plain integers, read by whoever asks."""

from __future__ import annotations

from typing import Any

from stoker.errors import NodeError
from stoker.types import Outcome, Source, Status


class Metrics:
    """What has been counted since the node started. Changed only by `settled`."""

    def __init__(self) -> None:
        self.calls = 0
        self.built = 0
        self._statuses = dict.fromkeys(Status, 0)
        self._sources = dict.fromkeys(Source, 0)
        self._refusals: dict[str, int] = {}
        self._admit_ms = self._code_ms = self._sandbox_ms = self._init_ms = self._run_ms = 0.0

    def __repr__(self) -> str:
        return f"<Metrics {self.calls} calls, {self._statuses[Status.OK]} ok>"

    def settled(self, end: Outcome | NodeError) -> None:
        """Count one call at its end."""
        self.calls += 1
        if isinstance(end, NodeError):
            self._refusals[end.code] = self._refusals.get(end.code, 0) + 1
            return
        self._statuses[end.status] += 1
        self.built += end.built
        if end.sandbox:
            self._sources[end.source] += 1
        phases = end.phases
        self._admit_ms += phases.admit
        self._code_ms += phases.code
        self._sandbox_ms += phases.sandbox
        self._init_ms += phases.init
        self._run_ms += phases.run

    def snapshot(self) -> dict[str, Any]:
        """Every counter as it is now: JSON's own types only."""
        spent = {
            "admit": self._admit_ms,
            "code": self._code_ms,
            "sandbox": self._sandbox_ms,
            "init": self._init_ms,
            "run": self._run_ms,
        }
        return {
            "calls": self.calls,
            "built": self.built,
            "outcomes": {status.value: count for status, count in self._statuses.items()},
            "sources": {source.value: count for source, count in self._sources.items()},
            "node_errors": dict(self._refusals),
            "spent_ms": {name: round(spent_ms, 3) for name, spent_ms in spent.items()},
        }
