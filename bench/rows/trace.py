"""S10: Azure-shaped arrivals at half the memory that they would like, on a node and simulated for longer."""

from __future__ import annotations

from pathlib import Path

from bench import packages, replay
from bench.arrivals import arrivals
from bench.row import Goal, Row, allowed, ratio
from bench.run import Run
from bench.simulation import Costs
from stoker.settings import Settings

FIXED = "fixed"
"""A fixed time, and the least recently used first where memory is short: what most others do."""


IDLE_SHARE = 0.5
"""Of its limit, what an idle one is taken to hold: on a node a no-op's holds a few megabytes."""


def measure(run: Run) -> None:
    """The same arrivals by the node's own policy and by the fixed one, in turn, another seed each round."""
    packages.python()
    policies = {"": Settings(home=Path()).keeping, "fixed_": FIXED}
    for seed in range(1, run.of(5, 1) + 1):
        trace = arrivals(seed, replay.SCALE, run.of(45.0, 10.0))
        peak_mb = replay.simulated(trace, "lru", replay.UNLIMITED_MB, Costs()).peak_mb
        for name, policy in policies.items():
            costs = Costs() if name else Costs(idle_share=IDLE_SHARE)
            share = replay.simulated(trace, policy, int(peak_mb * replay.REAL_CAP), costs).cold_share
            run.add(f"s10_simulated_{name}percent", 100 * share)
    for seed in range(1, run.of(5, 1) + 1):
        piece, cap_mb = replay.real_piece(seed, run.of(18.0, 3.0))
        for name, policy in policies.items():
            run.say(f"trace {seed}, {policy}: {len(piece.arrivals)} calls in {cap_mb} MB")
            with run.own_node(*replay.settings(policy, cap_mb)) as node:
                real = replay.replay(node, piece, policy, cap_mb)
            run.add(f"s10_{name}percent", real.cold)
            run.add(f"s10_{name}p99_ms", real.p99_ms)


def colder(metric: str, name: str) -> Goal:
    ours, theirs = f"{name}_percent", f"{name}_fixed_percent"
    return Goal("S10", metric, "≤ 0.6 × fixed time, LRU", (ours, theirs), ratio(ours, theirs), 0.6)


ROW = Row(
    "trace replay",
    measure,
    goals=(
        colder("cold calls of a trace at half its memory", "s10"),
        colder("the same, simulated for longer; fixed time by limits", "s10_simulated"),
        Goal("S10", "latency beyond the run of the calls: p99", "≤ 5 ms", ("s10_p99_ms",),
             allowed("s10_p99_ms", 5.0), 1.0),
    ),
    is_repeated=False,
)  # fmt: skip
