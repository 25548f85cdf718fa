"""The home of a node: made, given to whom the node becomes, and held by one node at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from stoker import __version__
from stoker.cli.lifetime.locks import Held, Lock, holder
from stoker.errors import Broken, SettingsError
from stoker.linux import privileges
from stoker.settings import Settings

LOCK = "node.lock"
NOT_OURS_ALONE = frozenset({LOCK, "stoker.toml", "daemon.log", "daemon.pid"})
"""What may lie in a folder before it becomes a home."""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What a running node says of itself in its home."""

    pid: int
    host: str
    port: int
    sandbox: str
    version: str
    started_at: float
    """Seconds since 1970."""


def claim(settings: Settings, port: int) -> Lock:
    """Make the home ready and take it. Raises `SettingsError`, `Broken` when another node has it."""
    try:
        _prepare(settings)
        lock = Lock(settings.home / LOCK, port)
    except Held as held:
        pid, port = held.holder.pid, held.holder.mark
        raise Broken(
            f"{settings.home} is the home of a node that runs: process {pid}, port {port}; "
            "stop that one, or give this one another --home"
        ) from None
    except OSError as error:
        raise SettingsError(f"home {settings.home} cannot be used: {error.strerror}") from None
    lock.write(msgspec.json.encode(_presence(settings, port)).decode() + "\n")
    return lock


def _presence(settings: Settings, port: int) -> Presence:
    return Presence(
        pid=os.getpid(),
        host=settings.host,
        port=port,
        sandbox=settings.sandbox,
        version=__version__,
        started_at=time.time(),
    )


def find(home: Path) -> Presence | None:
    """The node that runs in this home now."""
    path = home / LOCK
    try:
        held = holder(path)
        if held is None:
            return None
        said = msgspec.json.decode(path.read_bytes(), type=Presence)
    except (OSError, msgspec.DecodeError):
        return None
    return msgspec.structs.replace(said, pid=held.pid, port=held.mark)


def _prepare(settings: Settings) -> None:
    """Make the folder; started by root, give it to whom the node becomes."""
    settings.home.mkdir(0o711, parents=True, exist_ok=True)
    fd = os.open(settings.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(fd, settings.home)
        if os.geteuid() == 0:
            _give(fd, settings)
    finally:
        os.close(fd)


def _check(fd: int, home: Path) -> None:
    """A folder with other things in it is somebody else's: `--home /etc` would be a disaster."""
    strangers = set(os.listdir(fd)) - NOT_OURS_ALONE
    if strangers and LOCK not in os.listdir(fd):
        example = sorted(strangers)[0]
        raise SettingsError(
            f"home {home} is not empty and no home of a node (it has {example!r}); choose another"
        )
    if not os.access(home, os.W_OK | os.X_OK):
        raise SettingsError(
            f"home {home} is not writable for user {os.geteuid()}; choose another with --home"
        )


def _give(fd: int, settings: Settings) -> None:
    try:
        uid, gid = privileges.identity(settings.user, settings.node_uid)
    except KeyError:
        raise SettingsError(
            f"user {settings.user!r} is not known here; leave it empty, or add the user"
        ) from None
    owner = os.fstat(fd).st_uid
    if owner not in (0, uid):
        raise SettingsError(
            f"home {settings.home} belongs to user {owner}, but the node becomes user {uid}; "
            f"choose another home, or: chown -R {uid}:{gid} {settings.home}"
        )
    os.fchown(fd, uid, gid)
