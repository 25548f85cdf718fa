"""Ends in the way its event asks for."""

import os
import signal
import tempfile
import threading
import time

MEBIBYTE = 1024 * 1024


def lambda_handler(event):
    return globals()["do_" + event.get("do", "echo").replace("-", "_")](event)


def do_echo(event):
    return event.get("value")


def do_exit(event):
    os._exit(event["code"])


def do_kill(event):
    os.kill(os.getpid(), getattr(signal, event["by"]))
    time.sleep(60)


def do_eat(event):
    held = []
    while True:
        held.append(b"x" * MEBIBYTE)


def do_child_eats(event):
    """The signal that ended a child which eats its memory; the function itself goes on."""
    child = os.fork()
    if child == 0:
        do_eat(event)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def do_sleep(event):
    time.sleep(event["seconds"])


def do_stop(event):
    os.kill(0, signal.SIGSTOP)


def do_spin(event):
    while True:
        pass


def do_spin_in_threads(event):
    for _ in range(4):
        threading.Thread(target=do_spin, args=[event]).start()
    time.sleep(60)


def do_spin_in_children(event):
    for _ in range(4):
        if os.fork() == 0:
            do_spin(event)
    time.sleep(60)


def do_work(event):
    end = time.process_time() + event["ms"] / 1000
    while time.process_time() < end:
        pass


def do_flood(event):
    while True:
        os.write(1, b"x" * 65536)


def do_big(event):
    return "x" * event["bytes"]


def do_fill(event):
    with open(os.path.join(os.environ["TMPDIR"], "large"), "wb") as file:
        while True:
            file.write(b"x" * MEBIBYTE)


def do_fill_and_tidy(event):
    """What was written is gone again when the exception, of another type, comes out."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            while True:
                file.write(b"x" * MEBIBYTE)
    except OSError as error:
        raise ValueError("no room for the picture") from error


def do_fork_bomb(event):
    children = []
    try:
        while True:
            child = os.fork()
            if child == 0:
                time.sleep(60)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
