"""Why this machine cannot make lean sandboxes, and what to do about each reason."""

from __future__ import annotations

import os

from stoker.linux.seccomp import is_available
from stoker.linux.syscalls import OLD, is_supported_machine
from stoker.sandboxes.contract import Problem

OLDEST = (5, 12)  # mount_setattr; the newest of what is needed


def find_problems() -> list[Problem]:
    """Empty when it can. Asks nothing that leaves a trace."""
    found = []
    if os.geteuid() != 0:
        found.append(
            Problem("lean sandboxes need root", "start the node with sudo, or with --sandbox process")
        )
    if not is_supported_machine():
        known = ", ".join(OLD)
        found.append(Problem(f"lean sandboxes do not know {os.uname().machine}", f"they know {known}"))
    if kernel() < OLDEST:
        remedy = f"lean sandboxes need {'.'.join(map(str, OLDEST))} or newer"
        found.append(Problem(f"Linux {os.uname().release} is too old", remedy))
    if not is_available():
        found.append(Problem("libseccomp.so.2 is missing", "install it: apt install libseccomp2"))
    return found


def kernel() -> tuple[int, ...]:
    """`(6, 1)` for `6.1.0-18-amd64`."""
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, number)) or 0) for number in numbers)
