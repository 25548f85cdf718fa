"""The listening socket, taken before anything else so that a taken port is said at once and by name."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from stoker.cli.exits import NODE, Failure
from stoker.settings import Settings

BACKLOG = 2048  # connections that may wait while the node starts or is busy; the kernel's cap is 4096
LISTEN = "0A"  # the state's number in /proc/net/tcp


def listen(settings: Settings) -> socket.socket:
    """A listening socket where the settings say. Raises `Failure` that says who has the port."""
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise Failure(f"host {host!r} cannot be found: {error.strerror}", NODE) from None
    except OSError as error:
        raise Failure(_refusal(host, port, error), NODE) from None


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken{owner(port)}; choose another one, or 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"port {port} needs root; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host!r} is no address of this machine"
    return f"cannot listen on {host}, port {port}: {error.strerror}"


def owner(port: int) -> str:
    """` by <program> (process <pid>)`, as far as this user may see it."""
    inodes = {f"socket:[{inode}]" for inode in _listeners(port)}
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(fd.readlink()) in inodes:
                process = fd.parent.parent
                return f" by {(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue
    return ""


def _listeners(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def url_of(host: str, port: int) -> str:
    """How a client on this machine reaches it."""
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
