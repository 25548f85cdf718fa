"""Attacks with descriptors, and with the stream on which the server speaks to the node."""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import threading
import time

from trying import breaches

libc = ctypes.CDLL(None, use_errno=True)
HELLO, LOADED, RESULT, ERROR, LOG, DATA, EXITED = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87
MORE = 0x40
TIMES = bytes(16)
OWN_CALL = 1


def frame(kind, number, payload):
    return struct.pack("!IBI", len(payload), kind, number) + payload


def say(*frames):
    data = b"".join(frames)
    while data:
        data = data[os.write(3, data) :]


def channel():
    return socket.socket(fileno=os.dup(3))


# Descriptors


def opens_all_it_may(event):
    makers = [
        lambda: os.open("/dev/null", os.O_RDONLY),
        lambda: os.dup(3),
        lambda: os.memfd_create("x"),
        lambda: os.pipe()[0],
        lambda: os.dup(select.epoll().fileno()),
        libc.inotify_init,
        lambda: libc.timerfd_create(0, 0),
        lambda: libc.eventfd(0, 0),
        lambda: socket.socket(socket.AF_UNIX).detach(),
    ]
    for make in makers:
        try:
            for _ in range(5000):
                if make() < 0:
                    break
            else:
                return ["5000 descriptors"]
        except OSError:
            pass
        os.closerange(5, 2000)
    return []


def sends_descriptors_in_a_circle(event):
    """Sockets in flight inside each other, which only the kernel's collector finds."""
    for _ in range(2000):
        try:
            left, right = socket.socketpair()
            for _ in range(20):
                left.sendmsg(
                    [b"x"],
                    [
                        (
                            socket.SOL_SOCKET,
                            socket.SCM_RIGHTS,
                            array.array("i", [left.fileno(), right.fileno()]),
                        )
                    ],
                )
        except OSError:
            break
        os.close(left.detach())
        os.close(right.detach())
    return []


def has_only_its_own(event):
    there = {int(name) for name in os.listdir("/proc/self/fd")}
    return [f"{number}: {_link(number)}" for number in sorted(there) if number > 4 and _link(number)]


def _link(number):
    try:
        link = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""
    return "" if link.endswith("/fd") or link.startswith("/dev/urandom") else link


def opens_its_descriptors_anew(event):
    """By another way: with what mode was not given."""
    attempts = {
        f"{number} {mode}": lambda number=number, mode=mode: os.close(
            os.open(f"/proc/self/fd/{number}", mode | os.O_NONBLOCK)
        )
        for number in (1, 2, 3, 4)
        for mode in (os.O_RDONLY, os.O_RDWR)
    }
    return breaches(attempts)


def gives_itself_permits(event):
    area = mmap.mmap(-1, 4096)
    return breaches(
        {
            "write": lambda: os.write(4, bytes(8)),
            "splice": lambda: os.splice(0, 4, 8),
            "reopen": lambda: os.open("/proc/self/fd/4", os.O_WRONLY | os.O_NONBLOCK),
            "vmsplice": lambda: _check(libc.vmsplice(4, ctypes.byref(_Vector.of(area)), 1, 2)),
        }
    )


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    @classmethod
    def of(cls, area):
        return cls(ctypes.addressof(ctypes.c_char.from_buffer(area)), 4096)


def _check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def gifts_pages_to_the_pipes(event):
    """Pages that change after they were written."""
    area = mmap.mmap(-1, 4096)
    area[:] = b"x" * 4096
    vector = _Vector.of(area)
    for _ in range(64):
        libc.vmsplice(1, ctypes.byref(vector), 1, 8)
        area[:] = os.urandom(4096)
    return []


# The channel


def closes_the_channel(event):
    os.close(3)
    time.sleep(1e9)


def shuts_the_channel(event):
    channel().shutdown(event["how"])
    time.sleep(1e9)


def shuts_the_channel_and_answers(event):
    channel().shutdown(socket.SHUT_RD)
    return []


def floods_the_channel(event):
    while True:
        os.write(3, bytes(65536) if not event.get("random") else os.urandom(65536))


def floods_with_frames_for_nobody(event):
    """Well-formed, and for no call that there is."""
    flood = frame(event["kind"], 77, event["payload"].encode()) * 4000
    while True:
        say(flood)


def floods_with_empty_logs(event):
    flood = frame(LOG, OWN_CALL, b"") * 4000
    while True:
        say(flood)


def floods_with_short_logs(event):
    flood = frame(LOG, OWN_CALL, b"\1x") * 4000
    while True:
        say(flood)


def begins_results_without_end(event):
    start = frame(RESULT | MORE, OWN_CALL, TIMES + bytes(1 << 20))
    while True:
        say(start)


def a_part_at_a_time(event):
    """More than a result may have, in parts each of which is small enough."""
    say(frame(RESULT | MORE, OWN_CALL, TIMES))
    while True:
        say(frame(DATA | MORE, OWN_CALL, bytes(1 << 20)))


def a_frame_never_finished(event):
    """A byte at a time, of a frame as large as allowed."""
    say(struct.pack("!IBI", 6 << 20, RESULT, OWN_CALL))
    while True:
        os.write(3, b"x")
        time.sleep(0.001)


def promises_too_much(event):
    say(struct.pack("!IBI", 0xFFFFFFFF, RESULT, OWN_CALL))
    time.sleep(1e9)


def answers_for_others(event):
    """For calls that came before, may come and never will; then for its own."""
    for number in (0, 2, 3, 1000, 0xFFFFFFFF):
        for kind, payload in ((RESULT, TIMES + b"1"), (LOG, b"\1x"), (EXITED, struct.pack("!iiQ", 0, -1, 0))):
            say(frame(kind, number, payload))
    return []


def answers_twice(event):
    say(frame(RESULT, OWN_CALL, TIMES + b"[]"), frame(RESULT, OWN_CALL, TIMES + b'["second"]'))
    return ["third"]


def answers_with(event):
    """A frame as the event says, by hand; the server never gets to its own answer."""
    say(frame(event["kind"], event.get("number", OWN_CALL), bytes.fromhex(event["payload"])))
    time.sleep(1e9)


def answers_with_deep_nesting(event):
    say(frame(RESULT, OWN_CALL, TIMES + b"[" * (3 << 20) + b"]" * (3 << 20)))
    time.sleep(1e9)


def fails_with_deep_nesting(event):
    say(frame(ERROR, OWN_CALL, TIMES + b'{"type":' + b"[" * 400_000))
    time.sleep(1e9)


def claims_all_the_time_there_is(event):
    say(frame(RESULT, OWN_CALL, b"\xff" * 16 + b"[]"))
    time.sleep(1e9)


def out_of_band(event):
    """Urgent bytes, which a stream of this kind has too."""
    line = channel()
    for _ in range(event["bytes"]):
        try:
            line.send(b"!", socket.MSG_OOB)
        except OSError:
            break
    time.sleep(1e9)


def sends_descriptors_to_the_node(event):
    line = channel()
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", held))
    for _ in range(200):
        try:
            line.sendmsg([frame(LOG, OWN_CALL, b"\1x")], [rights])
        except OSError:
            pass
    return []


def sends_the_channel_through_the_channel(event):
    line = channel()
    line.sendmsg(
        [frame(LOG, OWN_CALL, b"\1x")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [3]))]
    )
    os._exit(8)


def options_of_the_channel(event):
    line = channel()
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_SNDBUF, 1),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 1),
        (socket.SOL_SOCKET, socket.SO_PASSCRED, 1),
        (socket.SOL_SOCKET, 42, 1 << 20),
        (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 30),
        (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    ):
        try:
            line.setsockopt(level, option, value)
        except OSError:
            pass
    line.setblocking(False)
    line.setblocking(True)
    return []


def greets_again(event):
    say(frame(HELLO, 0, b'{"wire": 1, "queues": true}'))
    time.sleep(1e9)


def eats_what_comes_in(event):
    """Whatever the node still has to say, somebody else hears it."""
    line = channel()
    threading.Thread(target=lambda: [line.recv(65536) for _ in iter(int, 1)], daemon=True).start()
    return []


def takes_the_servers_place(event):
    """In its own process a function can be the server."""
    import sys

    module = next(m for name, m in sys.modules.items() if name.endswith("stoker_server.channel"))
    module.Channel.send = lambda self, data: say(
        frame(RESULT, OWN_CALL, TIMES + b"[]"), frame(RESULT, 2, TIMES + b"[]")
    )
    module.Channel.receive = lambda self: time.sleep(1e9)
    return ["forged"]


def takes_the_words_away(event):
    """What the server uses to answer is not there any more."""
    import builtins

    json.JSONEncoder.iterencode = None
    json.loads = json.dumps = time.monotonic_ns = struct.pack = os.write = None
    builtins.len = builtins.bytes = builtins.print = None
    return {"a": 1}


def locks_the_channel(event):
    """Locks of every kind on whatever it shares with others."""
    for number in (0, 1, 2, 3, 4):
        for lock in (fcntl.LOCK_EX | fcntl.LOCK_NB,):
            try:
                fcntl.flock(number, lock)
            except OSError:
                pass
    for path in ("/dev/null", "/usr/bin/python3", os.path.abspath(__file__)):
        try:
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
    time.sleep(0.2)
    return []
