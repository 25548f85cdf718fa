"""The tables of the walls in SECURITY.md and docs/walls.md, written from what the code promises and sees.

Usage: python tests/walls/pages.py [FILE]: writes the table of promises anew; with a FILE made by
`stoker doctor --walls --json`, preferably beside a Docker Engine, also the table of what is seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stoker import plugins
from stoker.walls import WALLS

ROOT = Path(__file__).resolve().parents[2]
PROMISED, SEEN = ROOT / "SECURITY.md", ROOT / "docs" / "walls.md"
BEGIN, END = "<!-- written by tests/walls/pages.py -->\n", "<!-- until here -->\n"


def promises() -> dict[str, dict[str, str]]:
    """Every kind of sandbox that promises something, and what of each wall."""
    found: dict[str, dict[str, str]] = {}
    for name in plugins.names("sandboxes"):
        found |= getattr(plugins.load("sandboxes", name), "PROMISES", {})
    return found


def promised_table() -> str:
    columns = promises()
    rows = ((wall.name, *(column.get(wall.name, "–") for column in columns.values())) for wall in WALLS)
    return table(("wall", *(f"`{name}`" for name in columns)), rows)


def seen_table(report: dict[str, Any]) -> str:
    columns = {name: column["walls"] for name, column in report["columns"].items() if column["walls"]}
    rows = ((wall.name, *(column[wall.name]["seen"] for column in columns.values())) for wall in WALLS)
    return table(("wall", *(f"`{name}`" for name in columns)), rows)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(text: str, table: str) -> str:
    """A page with this table between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str]) -> None:
    PROMISED.write_text(with_table(PROMISED.read_text(), promised_table()))
    for file in arguments:
        SEEN.write_text(with_table(SEEN.read_text(), seen_table(json.loads(Path(file).read_text()))))


if __name__ == "__main__":
    main(sys.argv[1:])
