"""Attacks with what a function writes, returns and raises."""

from __future__ import annotations

import fcntl
import os
import struct
import threading

LINE = b"y\n" * 32_768


def floods(event):
    while True:
        os.write(event.get("stream", 1), LINE)


def floods_both(event):
    while True:
        os.write(1, LINE)
        os.write(2, LINE)


def floods_by_single_bytes(event):
    while True:
        os.write(1, b"x")


def floods_from_many_threads(event):
    for _ in range(16):
        threading.Thread(target=floods, args=(event,), daemon=True).start()
    floods(event)


def floods_pipes_it_has_changed(event):
    """Larger and never blocking: the flags are this end's, the size is the pipe's."""
    for stream in (1, 2):
        fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(stream, False)
    while True:
        try:
            os.write(1, LINE)
        except BlockingIOError:
            pass


def signals_for_what_is_written(event):
    """Asks to be signalled for whatever happens at either end of its descriptors."""
    for stream in (1, 2, 3, 4):
        try:
            fcntl.fcntl(stream, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(stream, 10, 0)
            flags = fcntl.fcntl(stream, fcntl.F_GETFL)
            fcntl.fcntl(stream, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_APPEND | os.O_NONBLOCK)
            fcntl.fcntl(stream, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError:
            pass
    for stream in (1, 2, 3):
        os.set_blocking(stream, True)
    return []


def smallest_pipes(event):
    for stream in (1, 2, 4):
        try:
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 4096)
        except OSError:
            pass
    os.write(1, bytes(100_000))
    return []


def bytes_that_are_no_text(event):
    os.write(1, bytes(range(256)) + b"\x1b[2J\x1b]0;owned\x07\0\r\n" + "\U0001f525".encode()[:3])
    os.write(2, b"\xff\xfe\x00\xd8" * 1000)
    return []


def speaks_like_the_server(event):
    """Frames, records and words of the node's own, on the wrong descriptors."""
    frame = struct.pack("!IBI", 18, 0x83, 1) + bytes(16) + b'"'
    for stream in (1, 2):
        os.write(stream, frame * 100)
        os.write(stream, b'{"status": "ok"}\nstoker: ready\n{"level":"error","logger":"stoker"}\n')
        os.write(stream, b"END RequestId: 0 \nREPORT RequestId: 0\nHTTP/1.1 200 OK\r\n\r\n")
    return []


def closes_its_streams(event):
    os.close(0)
    os.close(1)
    os.close(2)
    print("to nobody")
    return []


def reads_its_input(event):
    import sys

    return [] if sys.stdin is None or os.read(0, 1) == b"" else ["there is input"]


def result_too_large(event):
    return "x" * (7 << 20)


def result_that_is_deep(event):
    nest = []
    for _ in range(50_000):
        nest = [nest]
    return nest


def result_that_is_no_json(event):
    return {1, 2, float("nan")}


def result_that_lies(event):
    class Liar:
        @property
        def __class__(self):
            raise SystemError("no class")

        def __getattr__(self, name):
            raise KeyboardInterrupt(name)

    return Liar()


def error_with_a_long_name(event):
    raise type("A\r\nX-Injected: yes\r\n\r\n" + "B" * 100_000, (Exception,), {})(
        "\0\ud800\r\n\x1b[31m" * 100_000
    )


def error_that_cannot_be_told(event):
    class Untold(BaseException):
        def __str__(self):
            raise self

        __repr__ = __str__

    raise Untold


def error_without_end(event):
    """A chain of causes that leads back to its start."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__, second.__context__ = second, first
    raise first


def error_that_ends_loops(event):
    raise {"stop": StopIteration, "generator": GeneratorExit, "interrupt": KeyboardInterrupt}[event["kind"]]


def error_from_the_deep(event):
    def deeper():
        deeper()

    deeper()


def writes_after_the_answer(event):
    def life():
        while True:
            os.write(1, LINE)

    threading.Thread(target=life, daemon=True).start()
    return []
