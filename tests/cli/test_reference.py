from __future__ import annotations

from pathlib import Path

from stoker.cli import reference
from stoker.cli.exits import MEANINGS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_the_settings_says_what_the_settings_say() -> None:
    page = (DOCS / "settings.md").read_text()
    assert page == reference.page(), "make it anew: stoker settings --markdown > docs/settings.md"


def test_every_exit_code_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {code} | {meaning} |" in page
