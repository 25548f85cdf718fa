"""The command line. Only what a command needs is imported, when it is called: help answers at once."""

from __future__ import annotations


def main() -> int:
    """Run one command; returns its exit code."""
    from stoker.cli.app import run

    return run()
