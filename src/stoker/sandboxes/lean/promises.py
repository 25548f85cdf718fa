"""What is promised of each wall of a lean sandbox, in the words of `stoker doctor --walls`."""

from __future__ import annotations

ROOT: dict[str, str] = {}

PROMISES = {"lean": ROOT}
