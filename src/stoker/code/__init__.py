"""What is to be run: packages fetched, unpacked and built behind walls, kept in folders named by digest."""

from __future__ import annotations

from stoker.code.cache import Cache, Pin, Version
from stoker.code.front import FrontCatalog
from stoker.code.functions import Functions
from stoker.code.terms import Terms
from stoker.code.tooling import builder_launch

__all__ = ["Cache", "FrontCatalog", "Functions", "Pin", "Terms", "Version", "builder_launch"]
