"""The host's own settings for pip and npm, found as these programs find them, for use inside builds."""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from stoker.code.luggage import Luggage

# Where things go is the build's business, and so is whether anything is done at all.
# fmt: off
PIP_OURS = frozenset(
    (
        "break-system-packages", "cache-dir", "compile", "config-file", "disable-pip-version-check",
        "dry-run", "editable", "isolated", "log", "no-cache-dir", "no-compile", "prefix",
        "progress-bar", "python", "quiet", "report", "require-venv", "require-virtualenv",
        "requirement", "root", "src", "target", "upgrade", "user", "verbose",
    )
)
NPM_OURS = frozenset(
    (
        "audit", "cache", "dry-run", "fund", "global", "globalconfig", "include",
        "include-workspace-root", "json", "location", "loglevel", "logs-dir", "long", "offline",
        "omit", "only", "parseable", "prefix", "production", "progress", "save", "update-notifier",
        "userconfig", "workspace", "workspaces",
    )
)
# fmt: on
NPM_FILES = ("cafile", "certfile", "keyfile")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def pip_settings(environ: Mapping[str, str], luggage: Luggage) -> dict[str, str]:
    """pip's variables for a build, one file of merged settings among them."""
    settings = {}
    for name, value in environ.items():
        key = _dashed(name.removeprefix("PIP_"))
        if name.startswith("PIP_") and key not in PIP_OURS:
            settings[name] = _taken_along(value, luggage)
    settings["PIP_CONFIG_FILE"] = luggage.write("pip.conf", _merged(pip_files(environ), luggage).encode())
    return settings


def pip_files(environ: Mapping[str, str]) -> list[Path]:
    """pip's own files, the strongest last."""
    said = environ.get("PIP_CONFIG_FILE")
    if said == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    machine = [
        Path(folder) / "pip" for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder
    ]
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"
    folders = [*machine, Path("/etc"), home / ".pip", user, Path(sys.prefix)]
    return [*(folder / "pip.conf" for folder in folders), *([Path(said)] if said else [])]


def _merged(files: list[Path], luggage: Luggage) -> str:
    """All files as one; for each section and key the last file has its way, as in pip."""
    merged: dict[str, dict[str, str]] = {}
    for file in files:
        reader = configparser.RawConfigParser()
        try:
            reader.read(file, "utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip outside would complain; a node must start all the same
        for section in reader.sections():
            kept = ((_dashed(key), value) for key, value in reader.items(section))
            merged.setdefault(section, {}).update((key, value) for key, value in kept if key not in PIP_OURS)
    return "".join(_section(name, values, luggage) for name, values in merged.items())


def _section(name: str, values: dict[str, str], luggage: Luggage) -> str:
    lines = (
        f"{key} = {_taken_along(value, luggage, between=chr(10) + '  ')}\n" for key, value in values.items()
    )
    return f"[{name}]\n{''.join(lines)}\n"


def _taken_along(value: str, luggage: Luggage, between: str = " ") -> str:
    return between.join(luggage.take_along(word) for word in value.split())


def _dashed(key: str) -> str:
    return key.lower().replace("_", "-")


def npm_settings(environ: Mapping[str, str], luggage: Luggage) -> dict[str, str]:
    """npm's variables for a build, naming copies of the user's and the machine's file."""
    settings = {}
    for name, value in environ.items():
        key = _dashed(name[len("npm_config_") :])
        if name.lower().startswith("npm_config_") and key not in NPM_OURS:
            settings[name] = luggage.take_along(value) if key in NPM_FILES else value
    for level, file in npm_files(environ).items():
        text = file.read_text("utf-8", "replace") if _is_readable(file) else ""
        lines = list(_npm_lines(text, luggage))
        settings[f"npm_config_{level}config"] = luggage.write(f"{level}.npmrc", "".join(lines).encode())
        settings |= {name: environ[name] for name in _VARIABLE.findall("".join(lines)) if name in environ}
    return settings


def npm_files(environ: Mapping[str, str]) -> dict[str, Path]:
    """npm's own files by level."""
    said = {name.lower(): value for name, value in environ.items() if name.lower().startswith("npm_config_")}
    home = Path(environ.get("HOME") or Path.home())
    prefix = Path(said.get("npm_config_prefix") or _node_prefix(environ))
    return {
        "user": Path(said.get("npm_config_userconfig") or home / ".npmrc"),
        "global": Path(said.get("npm_config_globalconfig") or prefix / "etc" / "npmrc"),
    }


def _node_prefix(environ: Mapping[str, str]) -> Path:
    """The folder above the one that holds `node`."""
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        node = Path(folder) / "node"
        if folder and os.access(node, os.X_OK):
            return node.resolve().parent.parent
    return Path("/usr/local")


def _is_readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)


def _npm_lines(text: str, luggage: Luggage) -> Iterator[str]:
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if key.removesuffix("[]") in NPM_OURS:
            continue
        if equals and key.rpartition(":")[2] in NPM_FILES:
            quote = value[:1] if value[:1] in ("'", '"') else ""
            value = luggage.take_along(value.strip("'\""))
            yield f"{key}={quote}{value}{quote}\n"
        else:
            yield line + "\n"
