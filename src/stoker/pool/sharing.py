"""Which modules of one set of packages are worth importing once for several functions.

Theory. Functions with the same packages, to the byte, import some of the same modules. What several of them
name is a node between the interpreter, which all have in common, and each function's own zygote: a sandbox
starts from the deepest that is there. A node with many modules saves more to those that name all of them, one
with few saves something to more. What there is to choose from is what two of them have in common; what it
saves is reckoned from what their imports took lately.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

MOST = 8
"""So many functions are looked at, those first that have lost most time."""


class Member(NamedTuple):
    """One function with these packages."""

    function: str
    imports: frozenset[str]
    lost_s: float
    """What its imports took lately, all together."""


def common(members: Sequence[Member]) -> frozenset[str]:
    """What at least two functions name and saves most; empty: nothing is."""
    some = sorted(members, key=lambda one: (-one.lost_s, one.function, sorted(one.imports)))[:MOST]
    pairs = [(one, two) for one, two in combinations(some, 2) if one.function != two.function]
    choices = {one.imports & two.imports for one, two in pairs} - {frozenset()}
    return max(choices, key=lambda choice: (saved_s(choice, some), sorted(choice)), default=frozenset())


def saved_s(choice: frozenset[str], members: Sequence[Member]) -> float:
    """Of those that name all of it, as much of their imports as it has of their names."""
    return math.fsum(one.lost_s * len(choice) / len(one.imports) for one in members if choice <= one.imports)
