"""Attempts, and which of them went through."""

from __future__ import annotations

import os


def breaches(attempts):
    """The names of the attempts that did not fail with an `OSError`."""
    through = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        through.append(name)
    return through


def detach(life):
    """Run `life` in a process that has left its parent, session and group."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                life()
            finally:
                os._exit(0)
        os._exit(0)
    os.wait()
