"""Talking to a node: which one is meant, one request, its answer or a clear failure.

The standard library's client, not httpx2: that takes 66 ms to import and 40 more for its first call,
longer than a warm call takes as a whole.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from stoker.cli.exits import NODE, REFUSED, UNREACHABLE, USAGE, Failure, code_of_type
from stoker.cli.lifetime import home, ports
from stoker.cli.lifetime.daemon import PID_FILE
from stoker.cli.lifetime.stopping import running
from stoker.settings import Settings, load

PATIENCE_S = 960.0  # a call's longest allowance by default, and a minute for its cold start


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """How the user said which node; None: not said."""

    url: str | None = None
    port: int | None = None
    home: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """What the node answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Found(msgspec.Struct, frozen=True):
    """The node that is meant."""

    url: str
    pid: int | None = None
    """Where this machine's kernel knows it."""


def find(target: Target) -> Found:
    """As said, else the node of `daemon.pid` here, that of the home, that of the settings' host and port.

    Raises `Failure` when a home was named and no node runs there, `SettingsError`.
    """
    if target.url is not None:
        return Found(target.url.rstrip("/"))
    settings = load({"home": target.home, "port": target.port}, os.environ, Path.cwd())
    if target.port is not None:
        return Found(ports.url_of(settings.host, target.port))
    return _running(settings, target.home is not None)


def _running(settings: Settings, is_home_meant: bool) -> Found:
    daemon = None if is_home_meant else running(Path(PID_FILE))
    if daemon is not None:
        return Found(ports.url_of(settings.host, daemon.mark), daemon.pid)
    present = home.find(settings.home)
    if present is not None:
        return Found(ports.url_of(present.host, present.port), present.pid)
    if is_home_meant:
        raise Failure(f"no node runs in {settings.home}; `stoker start` starts one", UNREACHABLE)
    return Found(ports.url_of(settings.host, settings.port))


def path_of(name: str) -> str:
    """Where a function of that name would be, whatever was typed."""
    return f"/functions/{quote(os.fsencode(name), safe='')}"


def ask(url: str, method: str, path: str, body: bytes | None = None) -> Reply:
    """One request. Raises `Failure` when no node answers."""
    connection = _connection(url)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        reply = connection.getresponse()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, headers, reply.read())
    except TimeoutError:
        raise Failure(f"the node at {url} gave no answer within {PATIENCE_S:g} s", NODE) from None
    except http.client.HTTPException as error:
        raise Failure(f"what answers at {url} is no node, or it has just ended ({error!r})", NODE) from None
    except OSError as error:
        raise Failure(
            f"no node answers at {url} ({error.strerror or error}); `stoker start` starts one", UNREACHABLE
        ) from None
    finally:
        connection.close()


def _connection(url: str) -> http.client.HTTPConnection:
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        parts = urlsplit(url)
        kind: type[http.client.HTTPConnection] = kinds[parts.scheme]
        return kind(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    except (KeyError, ValueError, http.client.InvalidURL):
        raise Failure(f"{url!r} is no address of a node; say it like http://127.0.0.1:8222", USAGE) from None


def data(reply: Reply) -> Any:
    """What a good answer carries. Raises `Failure` with what the node says of a bad one."""
    if reply.status >= 400:
        raise failure(reply)
    try:
        return json.loads(reply.body)["data"]
    except (ValueError, KeyError, TypeError):
        raise Failure("what answered is no node: its answer is not of the right shape", NODE) from None


def failure(reply: Reply) -> Failure:
    """A bad answer as the end of the command."""
    error = error_of(reply)
    code = code_of_type(error["type"])
    if code is None:
        code = REFUSED if reply.status < 500 else NODE
    return Failure(error["message"], code)


def error_of(reply: Reply) -> dict[str, str]:
    """`type`, `message`, `stack` of a bad answer, whoever gave it."""
    try:
        error = json.loads(reply.body)["error"]
        return {
            "type": str(error["type"]),
            "message": str(error["message"]),
            "stack": str(error.get("stack", "")),
        }
    except (ValueError, KeyError, TypeError):
        return {
            "type": "",
            "message": f"HTTP {reply.status}: {reply.body[:200].decode('utf-8', 'replace')}",
            "stack": "",
        }
