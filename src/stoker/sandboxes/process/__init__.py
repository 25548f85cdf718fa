"""Plain processes, for development: no walls, but limits as far as they go and nothing left behind."""

from __future__ import annotations

from stoker.sandboxes.process.backend import Backend, Settings
from stoker.sandboxes.process.promises import PROMISES

__all__ = ["PROMISES", "Backend", "Settings"]
