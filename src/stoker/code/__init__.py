"""What is to be run: packages fetched, unpacked and built behind walls, kept in folders named by digest."""

from __future__ import annotations

from pathlib import Path

from stoker.code.cache import Cache, Pin, Version
from stoker.code.front import FrontCatalog
from stoker.code.functions import Functions
from stoker.code.terms import Terms
from stoker.code.tooling import builder_launch

BUILD_STEPS = Path(__file__).parent / "workshop"
"""The folder of the program that runs inside a build, shown there as the code is to a function."""

__all__ = ["BUILD_STEPS", "Cache", "FrontCatalog", "Functions", "Pin", "Terms", "Version", "builder_launch"]
