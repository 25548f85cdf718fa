"""`start` in the foreground: this process becomes the node."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

from stoker.cli import home, ports
from stoker.settings import Settings


def serve(settings: Settings, listening: socket.socket, ready: Callable[[], None]) -> int:
    """Run the node until it is told to stop; returns its exit code. Raises `NodeError`.

    `ready` is called when it answers.
    """
    lock = home.claim(settings, port_of(listening))
    try:
        from stoker import node
        from stoker.telemetry.logs import open_log

        open_log(settings.log_level)
        return node.serve(settings, listening, ready)
    finally:
        lock.release()


def foreground(settings: Settings, listening: socket.socket) -> int:
    """Serve here, and say where on stderr."""
    return serve(
        settings, listening, lambda: print(greeting(settings, listening), file=sys.stderr, flush=True)
    )


def greeting(settings: Settings, listening: socket.socket) -> str:
    """Where it listens, and what to do next."""
    url = ports.url_of(settings.host, port_of(listening))
    return (
        f"Stoker answers on {url}, sandbox {settings.sandbox}, home {settings.home}\n"
        f"try: stoker deploy examples/hello-python && stoker invoke hello-python"
    )


def port_of(listening: socket.socket) -> int:
    """The port it really listens on: settings may say 0."""
    port: int = listening.getsockname()[1]
    return port
