"""The settings as people read them: a table of those in force, and the page `docs/settings.md`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stoker.settings import Key, Settings, keys

HEADS = ("setting", "now", "default", "meaning")
INTRODUCTION = """\
# Settings

A setting is read from, the weakest first: its default; `stoker.toml` in the working directory, or else
in the home, or the file that `--config` (or `STOKER_CONFIG`) names; the environment; the command line
(`stoker start --host …`, or `--set key=value` for any). An unknown key and a bad value are errors that
name their source and what would be right. An empty variable counts as not set; `none` unsets what may
be unset. Sizes and times are plain numbers in the unit that the name ends in.

`home` is `/var/lib/stoker` for root, and `$XDG_DATA_HOME/stoker` (`~/.local/share/stoker`) for others.
`stoker settings` shows what is in force. This page is made by `stoker settings --markdown`.

| key | default | variable | allowed | meaning |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """All of `docs/settings.md`."""
    return INTRODUCTION + "".join(map(_line, keys().values()))


def _line(key: Key) -> str:
    variables = ", ".join(f"`{name}`" for name in reversed(key.env))
    cells = (f"`{key.name}`", _default(key), variables, key.allowed, key.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(key: Key) -> str:
    if key.name == "home":
        return "see above"
    return f"`{_shown(key.default)}`" if key.default != "" else "empty"


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def rows(settings: Settings) -> Iterator[tuple[str, ...]]:
    """One row for each setting."""
    for key in keys().values():
        default = "" if key.name == "home" else _shown(key.default)
        yield key.name, _shown(getattr(settings, key.name)), default, key.meaning


def values(settings: Settings) -> dict[str, Any]:
    """Every setting's value now, in JSON's own types."""
    now = {name: getattr(settings, name) for name in keys()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in now.items()}
