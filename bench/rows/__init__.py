"""Everything that is measured, in its order: first the rows of every round, then those measured once.

Of those the ones that take little come first: a quick run begins nothing after a while.
"""

from __future__ import annotations

from bench.row import Row
from bench.rows import (
    burst,
    churn,
    cold,
    cold_node,
    commands,
    density,
    engines,
    forks,
    kills,
    null,
    overload,
    plain,
    rivals,
    trace,
    warm,
    zygotes,
)

ROWS: tuple[Row, ...] = (
    forks.ROW,
    plain.ROW,
    null.ROW,
    warm.ROW,
    cold.ROW,
    engines.DOCKER,
    engines.RUNC,
    rivals.BUBBLEWRAP,
    rivals.FRAMEWORK,
    rivals.LAMBDARIC,
    commands.ROW,
    kills.ROW,
    density.ROW,
    cold_node.ROW,
    burst.ROW,
    overload.ROW,
    churn.ROW,
    trace.ROW,
    zygotes.ROW,
)
