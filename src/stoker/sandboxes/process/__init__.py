"""Plain processes, for development: no walls, but limits as far as they go and nothing left behind."""

from __future__ import annotations

from stoker.sandboxes.process.backend import Backend, Settings

__all__ = ["Backend", "Settings"]
