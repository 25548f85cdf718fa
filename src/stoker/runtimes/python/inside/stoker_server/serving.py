"""The life of a server: greet, load, then serve calls in the way the node asked for."""

from __future__ import annotations

import faulthandler
import json
import os
import struct
import sys
import time

from . import leaving, loading, rehearsal, serial, streams
from .channel import HELLO, LOAD, LOADED, WIRE, Channel, has_permits, write_error, write_frame
from .failures import LoadFailed
from .function import Function

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .anchor import Anchor

AFRESH, THAWED, PARTLY = b"\0", b"\1", b"\2"  # how a function was loaded
_DECODER = json.JSONDecoder()  # `json.loads` would look for the encoding first
_LETTER = struct.Struct("=QQ")  # when it was begun, and the size of the LOAD; then that, and what was unread


class Server:
    """What is the same in every process that is forked from this one, made once."""

    def __init__(self, anchor: Anchor | None) -> None:
        faulthandler.enable()
        loading.restore_exit()
        self._anchor = anchor
        self._hello, self._queueing_hello = _write_hello(False), _write_hello(True)

    def serve(self, channel_fd: int) -> None:
        """Answer frames until the node closes the stream or the function ends the process; never returns."""
        with leaving.ProcessEnds():
            self.converse(Channel(channel_fd))

    def converse(self, channel: Channel) -> None:
        """Greet, load what is asked for and answer until the end of the stream, which it raises."""
        channel.send(self._queueing_hello if has_permits() else self._hello)
        os.set_inheritable(channel.fd, False)
        rehearsal.rehearse_unless_asked(channel.fd, self.load_and_serve)
        self.load_and_serve(channel)

    def load_and_serve(self, channel: Channel) -> None:
        """Load what the first frame says, and answer calls until the end of the stream, which it raises."""
        load, began_ns, how = _receive_load(channel, self._anchor), time.monotonic_ns(), AFRESH
        if load.get("imports"):
            (began_ns, load), how = _import_packages(channel, load, self._anchor), PARTLY
        if _is_shared(load):
            from . import routing

            routing.install()  # before the function's modules keep hold of the streams that are there
        function = _load(channel, load, self._anchor, began_ns, how)
        _serve_calls(channel, function, load)


def _write_hello(queues: bool) -> bytes:
    version = ".".join(map(str, sys.version_info[:3]))
    hello = {"wire": WIRE, "runtime": "python", "version": version, "queues": queues}
    return write_frame(HELLO, 0, json.dumps(hello).encode())


def _is_shared(load: dict[str, Any]) -> bool:
    return bool(load["mode"] == "process" and load["concurrency"] > 1)


def _receive_load(channel: Channel, anchor: Anchor | None) -> dict[str, Any]:
    """What to load; where it came with a function that is loaded already, this process becomes that."""
    (kind, _, payload), file = (channel.receive(), -1) if anchor is None else channel.receive_with_file()
    began_ns = time.monotonic_ns()
    load: dict[str, Any] = _DECODER.decode(payload.decode()) if kind == LOAD else {}
    if load.get("wire") != WIRE:
        sys.exit(leaving.PROTOCOL_ERROR)
    if anchor is not None and file >= 0:
        from . import thawing

        unread = channel.exchange_unread(b"")
        thawing.thaw(anchor, file, _LETTER.pack(began_ns, len(payload)) + payload + unread, load)
        channel.exchange_unread(unread)
        os.close(file)
    return load


def _load(
    channel: Channel, load: dict[str, Any], anchor: Anchor | None, began_ns: int, how: bytes
) -> Function:
    try:
        function = Function(load)
    except LoadFailed as failure:
        _fail_to_load(channel, began_ns, failure)
    streams.flush()
    if load.get("freeze"):
        (began_ns, load), how = _freeze(channel, load, anchor, began_ns, {}), THAWED
    names = b""
    if load.get("tells") and how != THAWED:
        from . import packages

        names = packages.tell(load)
    took_ns = time.monotonic_ns() - began_ns
    channel.send(write_frame(LOADED, 0, took_ns.to_bytes(8, "big") + how + names))
    return function


def _fail_to_load(channel: Channel, began_ns: int, failure: LoadFailed) -> NoReturn:
    streams.flush()
    channel.send(write_error(0, time.monotonic_ns() - began_ns, 0, failure.error))
    sys.exit(1)


def _import_packages(
    channel: Channel, load: dict[str, Any], anchor: Anchor | None
) -> tuple[int, dict[str, Any]]:
    """Hand over a process that has imported packages, and end; returns only in who becomes it."""
    from . import packages

    began_ns = time.monotonic_ns()
    try:
        packages.import_alone(load)
    except LoadFailed as failure:
        _fail_to_load(channel, began_ns, failure)
    except BaseException as error:
        _fail_to_load(channel, began_ns, LoadFailed("ImportFailed", f"{type(error).__name__}: {error}"))
    streams.flush()
    return _freeze(channel, load, anchor, began_ns, packages.about(load))


def _freeze(
    channel: Channel, load: dict[str, Any], anchor: Anchor | None, began_ns: int, about: dict[str, list[str]]
) -> tuple[int, dict[str, Any]]:
    """Hand over this process as it is now, and end; returns only in who becomes it.

    When that began to, and what it is to load.
    """
    from . import freezing

    took_ns = time.monotonic_ns() - began_ns
    try:
        if anchor is None:
            raise freezing.CannotFreeze("no zygote has reserved what it takes")
        file = freezing.freeze(anchor, load["code"], about)
    except freezing.CannotFreeze as error:
        channel.send(write_error(0, took_ns, 0, ("CannotFreeze", str(error), "")))
        sys.exit(1)
    if file >= 0:
        channel.send_with_file(write_frame(LOADED, 0, took_ns.to_bytes(8, "big") + AFRESH), file)
        channel.receive()
        sys.exit(leaving.PROTOCOL_ERROR)
    assert anchor is not None
    letter = anchor.find()
    began_ns, size = _LETTER.unpack_from(letter)
    channel.exchange_unread(letter[_LETTER.size + size :])
    wanted: dict[str, Any] = json.loads(letter[_LETTER.size : _LETTER.size + size])
    return began_ns, wanted


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
