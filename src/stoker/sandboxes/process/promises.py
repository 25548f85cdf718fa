"""What is promised of each wall of a plain process: nothing, but for what it is started with."""

from __future__ import annotations

PROMISES: dict[str, dict[str, str]] = {"process": {}}
