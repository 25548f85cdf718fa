"""The hostile functions' one handler: runs the attack that the event names.

An attack returns what it got through with, a list of texts; behind walls that hold it is empty.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess


def handler(event, context):
    attack = event["attack"]
    if event.get("program"):
        return run_program(attack)
    module, _, name = attack.partition(".")
    return getattr(importlib.import_module(module), name)(event)


def run_program(attack):
    """The C program's attack; this process ends as the program did, unless that ended well."""
    done = subprocess.run(
        [f"{os.path.dirname(__file__)}/program", attack], stdout=subprocess.PIPE, check=False
    )
    if done.returncode < 0:
        if -done.returncode not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-done.returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -done.returncode)
    if done.returncode:
        os._exit(done.returncode)
    return done.stdout.decode().splitlines()
