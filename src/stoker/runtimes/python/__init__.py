"""Python, from 3.8 on: whatever interpreters this machine has."""

from __future__ import annotations

from stoker.runtimes.python.runtime import Runtime

__all__ = ["Runtime"]
