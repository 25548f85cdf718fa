"""What must not be the same in two processes of which one is the copy of the other."""

from __future__ import annotations

import sys


def refresh() -> None:
    """Draw other numbers than the process we are a copy of; `random` sees to itself after a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None  # type: ignore[attr-defined]
