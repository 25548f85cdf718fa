"""Sandboxes made of the kernel's own parts: namespaces, cgroups, seccomp; forked from zygotes by a helper."""

from __future__ import annotations

from stoker.sandboxes.lean.backend import Backend
from stoker.sandboxes.lean.promises import PROMISES
from stoker.sandboxes.lean.settings import Settings

__all__ = ["PROMISES", "Backend", "Settings"]
