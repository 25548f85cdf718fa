"""What a build has that a function has not: the installers, and the host's settings for them.

pip and npm inside get what they would get outside: indexes, mirrors, proxies, certificates,
credentials. Each goes in as a copy of our own or read-only at its own path, into builds and nowhere
else. Settings of *where things go* (`target`, `prefix`, `cache`, …) stay outside.

HOLDS: runs before root is given up. Afterwards the node could not read what only root can.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.code.hostsettings import npm_settings, pip_settings
from stoker.code.luggage import Luggage
from stoker.sandboxes.contract import Launch, Show

FOLDER = "build-settings"
PIP, NPM = "/app/pip", "/app/npm"
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
CERTIFICATES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)
PLAIN = ("NODE_USE_SYSTEM_CA", "NODE_TLS_REJECT_UNAUTHORIZED", "LANG", "LC_ALL")
NODE_FLAGS = ("--use-openssl-ca", "--use-system-ca", "--use-bundled-ca")
LIBRARIES = "LD_LIBRARY_PATH"
# By which names are resolved; what runs functions sees neither.
RESOLVING = (Path("/etc/resolv.conf"), Path("/etc/hosts"))


class HasHome(Protocol):
    """The part of the settings that is needed here."""

    @property
    def home(self) -> Path: ...
    @property
    def build_network(self) -> str: ...


def builder_launch(
    base: Launch, settings: HasHome, tools: Iterable[Launch] = (), environ: Mapping[str, str] | None = None
) -> Launch:
    """How to start a build: as `base`, with every interpreter of `tools` and the host's settings at hand.

    Makes `<home>/build-settings` anew, for the owner of the home alone.
    """
    environ = os.environ if environ is None else environ
    tools = (base, *tools)
    with Luggage(settings.home / FOLDER) as luggage:
        inside = {
            **base.environment,
            **pip_settings(environ, luggage),
            **npm_settings(environ, luggage),
            **_network(environ, luggage, settings.build_network == "host"),
            **_installers(environ, luggage),
            **_names(tools),
        }
    return msgspec.structs.replace(
        base,
        name=f"{base.name}-builder",
        environment=inside,
        shows=_united([*(show for tool in tools for show in tool.shows), *luggage.shows]),
        fork=None,  # a zygote has the functions' environment, not this one
    )


def _names(tools: Iterable[Launch]) -> dict[str, str]:
    """`STOKER_TOOL_PYTHON_3_11_7` and so on: where the workshop finds each interpreter, and its libraries."""
    named = {re.sub(r"[^A-Z0-9]", "_", tool.name.upper()): tool for tool in tools}
    libraries = {name: tool.environment.get(LIBRARIES, "") for name, tool in named.items()}
    return {f"STOKER_TOOL_{name}": tool.argv[0] for name, tool in named.items()} | {
        f"STOKER_LIBS_{name}": path for name, path in libraries.items() if path
    }


def _united(shows: Iterable[Show]) -> tuple[Show, ...]:
    return tuple({show.target: show for show in reversed(list(shows))}.values())[::-1]


def _installers(environ: Mapping[str, str], luggage: Luggage) -> dict[str, str]:
    """Our own pip for interpreters without one, and npm when it is not where everybody sees it."""
    found = {}
    pip = importlib.util.find_spec("pip")
    if pip is not None and pip.origin:
        luggage.show(Path(pip.origin).parent, PIP)
        found["STOKER_BUILD_PIP"] = PIP
    npm = shutil.which("npm", path=environ.get("PATH"))
    program = Path(npm).resolve() if npm else Path()
    if program.name == "npm-cli.js" and not program.is_relative_to("/usr"):
        luggage.show(program.parent.parent, NPM)
        found["STOKER_BUILD_NPM"] = NPM
    elif program.name == "npm-cli.js":
        found["STOKER_BUILD_NPM"] = str(program.parent.parent)
    return found


def _network(environ: Mapping[str, str], luggage: Luggage, is_hosts: bool) -> dict[str, str]:
    """Proxies and certificates, and the files by which names are resolved."""
    proxies = {name for name in environ if name.lower() in PROXIES}
    taken = {name: environ[name] for name in (*proxies, *PLAIN) if name in environ}
    for name in CERTIFICATES:
        if environ.get(name):
            taken[name] = ":".join(luggage.take_along(path) for path in environ[name].split(":"))
    flags = [flag for flag in environ.get("NODE_OPTIONS", "").split() if flag in NODE_FLAGS]
    if flags:
        taken["NODE_OPTIONS"] = " ".join(flags)
    for file in RESOLVING:
        if is_hosts and file.is_file():
            luggage.show(file.resolve(), str(file))
    return taken
