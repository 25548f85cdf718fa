"""`start` in the foreground: this process becomes the node."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

from stoker.cli.lifetime import home, ports
from stoker.settings import Settings


def serve(settings: Settings, listening: socket.socket, ready: Callable[[], None]) -> int:
    """Run the node until it is told to stop; returns its exit code. Raises `NodeError`.

    `ready` is called when it answers.
    """
    signals = Signals()
    lock = home.claim(settings, port_of(listening))
    try:
        from stoker import node
        from stoker.telemetry.logs import open_log

        open_log(settings.log_level)

        def answers() -> None:
            signals.leave_to_server()
            ready()

        return node.serve(settings, listening, answers)
    finally:
        lock.release()


class Signals:
    """What a signal to end means before the server takes signals over, and after it.

    Until the node answers: stop starting. From then on the server acts on signals, and sends itself
    each once more when it has shut down; that must not cut off the closing of the rooms.
    """

    def __init__(self) -> None:
        self._is_starting = True
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))

    def __repr__(self) -> str:
        return f"<Signals of a node that {'starts' if self._is_starting else 'answers'}>"

    def leave_to_server(self) -> None:
        self._is_starting = False

    def _end(self, number: int, _: FrameType | None) -> None:
        if self._is_starting:
            raise SystemExit(128 + number)


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
