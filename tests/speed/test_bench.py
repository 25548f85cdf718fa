"""The benchmark as one types it: what it prints and writes, and when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--quick", "--sandbox", "process", *arguments]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    return subprocess.run(
        [*command, "--json", str(folder / "results.json")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tables_go_below_the_rule_of_a_page_and_into_the_results(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("# Kept\n\nThis too.\n\n---\n\nold\n")
    done = bench(folder, "--only", "S13", "--page", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    kept, rule, tables = page.read_text().partition("\n---\n")
    assert (kept, rule) == ("# Kept\n\nThis too.\n", "\n---\n")
    assert "| S13 | stoker --help |" in tables and "old" not in tables
    results = json.loads((folder / "results.json").read_text())
    assert {goal["id"] for goal in results["goals"]} == {"S13"}
    assert results["series"]["help_ms"] and results["failures"] == []


def test_a_goal_that_there_is_not_fails_at_once_and_says_so(folder: Path) -> None:
    done = bench(folder, "--only", "S99")
    assert done.returncode == 1
    assert "no goal S99; there is S1, S2" in done.stdout
    assert not (folder / "results.json").exists()
