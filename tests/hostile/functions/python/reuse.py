"""What one call leaves for the next, and what the next finds."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time

from trying import detach

KEY = 0x5701
libc = ctypes.CDLL(None, use_errno=True)


def leaves_all_it_can(event):
    """Files, segments, queues, semaphores, a listener, a process, a variable, a lock."""
    for folder in ("/tmp", "/dev/shm"):
        os.makedirs(f"{folder}/.left/{os.getpid()}", exist_ok=True)
        with open(f"{folder}/left", "w") as file:
            file.write("left")
    libc.shmget(KEY, 4096, 0o1666)
    libc.semget(KEY, 1, 0o1666)
    libc.msgget(KEY, 0o1666)
    os.environ["LEFT"] = "left"
    detach(_listen)
    return []


def _listen():
    line = socket.socket(socket.AF_UNIX)
    line.bind("\0left")
    line.listen()
    port = socket.create_server(("0.0.0.0", 8080))
    time.sleep(1e9)
    port.close()


def looks_for_what_was_left(event):
    found = [f"{folder}/{name}" for folder in ("/tmp", "/dev/shm") for name in os.listdir(folder)]
    found += [name for name, get in (("shm", libc.shmget), ("sem", libc.semget)) if get(KEY, 0, 0) >= 0]
    found += ["msg"] if libc.msgget(KEY, 0) >= 0 else []
    found += ["variable"] if "LEFT" in os.environ else []
    for family, address in ((socket.AF_UNIX, "\0left"), (socket.AF_INET, ("127.0.0.1", 8080))):
        with socket.socket(family) as line:
            found += [str(address)] if line.connect_ex(address) == 0 else []
    return found


def binds_and_stays(event):
    with socket.create_server(("0.0.0.0", 8080)):
        time.sleep(0.5)
    return []


def floods_while_nobody_calls(event):
    """Whichever stream the event says: 1 and 2 are its output, 3 is the channel."""
    stream = event["stream"]
    flood = (struct.pack("!IBI", 1, 0x85, 77) + b"\1") * 7000 if stream == 3 else b"y\n" * 32_768

    def life():
        while not over.is_set():
            os.write(stream, flood)

    over = threading.Event()
    threading.Thread(target=life, daemon=True).start()
    return []


def answers_for_everybody(event):
    """As if it had been every call that waits behind this one."""
    for number in range(1, 200):
        os.write(3, struct.pack("!IBI", 18, 0x83, number) + bytes(16) + b"[]")
    return []


def takes_the_permits_away(event):
    try:
        while os.read(4, 65_536):
            pass
    except BlockingIOError:
        return []


def ends_the_server(event):
    os.kill(os.getppid(), 9)
    time.sleep(1e9)
