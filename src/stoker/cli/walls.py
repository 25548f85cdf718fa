"""`doctor --walls`: what is seen from inside, as a table or as JSON."""

from __future__ import annotations

from stoker import walls
from stoker.cli import showing
from stoker.cli.exits import FAILED, OK
from stoker.settings import Settings


def show(settings: Settings, is_json: bool) -> int:
    """Look and print; the exit code is 0 when every wall of the default sandbox is as promised."""
    report = walls.look(settings)
    if is_json:
        showing.as_json(report.as_json())
    else:
        showing.rows(report.heads, report.rows())
        showing.remarks(report.remarks())
    return OK if report.is_kept else FAILED
