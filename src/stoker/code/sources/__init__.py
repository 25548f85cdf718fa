"""Where packages come from: a folder, a web server or a bucket, all streamed to a file and digested."""

from __future__ import annotations

from stoker.code.sources.contract import Package, Source, check_name
from stoker.code.sources.prefix import open_source

__all__ = ["Package", "Source", "check_name", "open_source"]
