"""Everything that is measured, in the order in which it is measured in every round."""

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
    churn.ROW,
    burst.ROW,
    cold_node.ROW,
    density.ROW,
    zygotes.ROW,
    overload.ROW,
    trace.ROW,
    kills.ROW,
)
