"""The life of a server: greet, load, then serve calls in the way the node asked for."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time

from . import leaving, rehearsal, serial, streams
from .channel import HELLO, LOAD, LOADED, Channel, has_permits, write_error, write_frame
from .failures import LoadFailed
from .function import Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any

WIRE = 1


def serve(channel_fd: int) -> None:
    """Answer frames until the node closes the stream or the function ends the process; never returns."""
    with leaving.process_ends():
        _greet_and_serve(Channel(channel_fd))


def _greet_and_serve(channel: Channel) -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    hello = {"wire": WIRE, "runtime": "python", "version": version, "queues": has_permits()}
    channel.send(write_frame(HELLO, 0, json.dumps(hello).encode()))
    os.set_inheritable(channel.fd, False)
    streams.install()
    faulthandler.enable()
    rehearsal.rehearse_unless_asked(channel.fd)
    load = _receive_load(channel)
    if _is_shared(load):
        from . import routing

        routing.install()  # before the function's modules keep hold of the streams that are there
    function = _load(channel, load)
    _serve_calls(channel, function, load)


def _is_shared(load: dict[str, Any]) -> bool:
    return bool(load["mode"] == "process" and load["concurrency"] > 1)


def _receive_load(channel: Channel) -> dict[str, Any]:
    kind, _, payload = channel.receive()
    load: dict[str, Any] = json.loads(payload) if kind == LOAD else {}
    if load.get("wire") != WIRE:
        sys.exit(leaving.PROTOCOL_ERROR)
    return load


def _load(channel: Channel, load: dict[str, Any]) -> Function:
    began_ns = time.monotonic_ns()
    try:
        function = Function(load)
    except LoadFailed as failure:
        streams.flush()
        channel.send(write_error(0, time.monotonic_ns() - began_ns, 0, failure.error))
        sys.exit(1)
    streams.flush()
    took_ns = time.monotonic_ns() - began_ns
    channel.send(write_frame(LOADED, 0, took_ns.to_bytes(8, "big")))
    return function


def _serve_calls(channel: Channel, function: Function, load: dict[str, Any]) -> None:
    if load["mode"] == "fork":
        from . import forks

        forks.serve_calls(channel, function)
    elif _is_shared(load):
        from . import tasks, threads

        several = tasks if tasks.fits(function.plain_handler) else threads
        several.serve_calls(channel, function, load["concurrency"])
    else:
        serial.serve_calls(channel, function)
