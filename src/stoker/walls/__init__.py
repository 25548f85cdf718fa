"""The walls as they are seen from inside: a probe, what is promised of it, and Docker's beside."""

from __future__ import annotations

from stoker.walls.report import Column, Report
from stoker.walls.table import WALLS, Wall
from stoker.walls.visit import look

__all__ = ["WALLS", "Column", "Report", "Wall", "look"]
