"""Does what its event says, with the words of the fake sandbox's server and some that need a real process."""

import asyncio
import os
import subprocess
import sys
import threading
import time

imported = []
MEGABYTE = 1024 * 1024


def lambda_handler(event, context):
    if not (isinstance(event, dict) and "do" in event):
        return event
    return globals()["do_" + event["do"]](event, context)


async def patient_handler(event):
    print("in", event.get("n"))
    await asyncio.sleep(event.get("seconds", 0))
    print("out", event.get("n"))
    if event.get("fails"):
        raise KeyError(event["n"])
    return event


def bare_handler():
    return "nothing asked"


def do_echo(event, context):
    return event.get("value")


def do_context(event, context):
    left_ms = context.get_remaining_time_in_millis()
    return {"id": context.invocation_id, "function": context.function_name, "left_ms": left_ms}


def do_big(event, context):
    return "x" * (event["bytes"] - 2)


def do_raise(event, context):
    raise ValueError(event.get("message", "asked to"))


def do_print(event, context):
    print(event.get("stdout", ""), end="")
    print(event.get("stderr", ""), end="", file=sys.stderr)


def do_shout(event, context):
    """Through a program of its own, which knows nothing of this process's streams."""
    subprocess.run(["/bin/sh", "-c", "echo loud; echo clear >&2"], check=True)


def do_flood(event, context):
    line = b"x" * 65535 + b"\n"
    for _ in range(event.get("bytes", 1 << 62) >> 16):
        os.write(1, line)
    return "dry"


def do_sleep(event, context):
    time.sleep(event["seconds"])


def do_hang(event, context):
    threading.Event().wait()


def do_spin(event, context):
    while True:
        pass


def do_exit(event, context):
    sys.exit(event.get("code", 0))


def do_abort(event, context):
    os.abort()


def do_kill(event, context):
    os.kill(os.getpid(), event.get("signal", 9))
    do_hang(event, context)


def do_oom(event, context):
    held = []
    try:
        while True:
            held.append(b"x" * MEGABYTE)
    except MemoryError:
        do_hang(event, context)


def do_async(event, context):
    async def answer():
        await asyncio.sleep(0)
        return "later"

    return answer()


def do_unserialisable(event, context):
    return {"a": object()}


def do_infinity(event, context):
    return [float("inf")]


def do_count(event, context):
    imported.append(1)
    return len(imported)


def do_process(event, context):
    return os.getpid()


def do_random(event, context):
    import random
    import uuid

    return [random.random(), uuid.uuid4().hex, os.urandom(8).hex()]


def do_environment(event, context):
    return dict(os.environ)


def do_descriptors(event, context):
    """What a program started here has open."""
    listing = ["/bin/ls", "-l", "/proc/self/fd"]
    shown = subprocess.run(listing, stdout=subprocess.PIPE, text=True, check=True, close_fds=False)
    return [line.split(" -> ")[1] for line in shown.stdout.splitlines() if " -> " in line]


def do_write(event, context):
    path = os.path.join(os.environ["TMPDIR"], event.get("name", "file"))
    with open(path, "w") as file:
        file.write("x" * event.get("bytes", 1))
    return path


def do_folder(event, context):
    return sorted(os.listdir("."))


def do_path(event, context):
    return sys.path


def do_daemon(event, context):
    """Leave a process behind that is out of this one's session, group and family."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for descriptor in range(3):
                os.close(descriptor)
            while True:
                time.sleep(3600)
        os._exit(0)
    return "left"


def do_frames(event, context):
    """Say on every open way what a lying server would say on the channel."""
    lie = b"\0\0\0\x12\x83\0\0\0\1" + bytes(16) + b"[]"
    for descriptor in (1, 2):
        os.write(descriptor, lie)
    return "the truth"


def do_thread(event, context):
    return threading.current_thread() is threading.main_thread()
