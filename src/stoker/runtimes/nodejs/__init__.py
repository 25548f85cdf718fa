"""Node.js, from 16 on: whatever interpreters this machine has."""

from __future__ import annotations

from stoker.runtimes.nodejs.runtime import Runtime

__all__ = ["Runtime"]
