"""S2: cold calls of functions whose imports take long, from a zygote that has them."""

from __future__ import annotations

from bench.row import Goal, NotMeasured, Row, ratio
from bench.run import Run


def measure(run: Run) -> None:
    raise NotMeasured("there is no measurement of it yet")


ROW = Row(
    "heavy imports",
    measure,
    goals=(
        Goal("S2", "cold, numpy, pandas, sklearn: p50", "≤ 2.5 × its zygote's fork", ("s2_us", "s2_fork_us"),
             ratio("s2_us", "s2_fork_us"), 2.5, cpu="s2_cpu_us"),
        Goal("S2", "cold, numpy, pandas, sklearn: p50", "≤ 1/20 of the import", ("s2_us", "s2_import_us"),
             ratio("s2_us", "s2_import_us"), 0.05, cpu="s2_cpu_us"),
        Goal("S2", "Zipf mix of requirement sets: median", "≥ 8 × without zygotes",
             ("s2_mix_us", "s2_mix_off_us"), ratio("s2_mix_off_us", "s2_mix_us"), 8.0, at_least=True),
    ),
    is_repeated=False,
)  # fmt: skip
