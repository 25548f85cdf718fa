"""Why this machine cannot make lean sandboxes, and what to do about each reason."""

from __future__ import annotations

import os
from pathlib import Path

from stoker.linux.seccomp import is_available
from stoker.linux.syscalls import OLD, is_supported_machine
from stoker.sandboxes.contract import Problem

# By number: DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, SYS_PTRACE, SYS_ADMIN,
# SYS_RESOURCE, MKNOD. Root in a container has but a few of them.
CAPABILITIES = (1, 3, 5, 6, 7, 8, 12, 19, 21, 24, 27)
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
    if (bound := user_namespaces()) == 0:
        remedy = "allow them: sysctl -w user.max_user_namespaces=65536"
        found.append(
            Problem("lean sandboxes need user namespaces, and user.max_user_namespaces is 0", remedy)
        )
    elif bound is None:
        found.append(Problem("this kernel has no user namespaces", "lean sandboxes need CONFIG_USER_NS"))
    if not is_available():
        found.append(Problem("libseccomp.so.2 is missing", "install it: apt install libseccomp2"))
    return found


def has_capabilities() -> bool:
    """Whether this root can do what the helper has to."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return all(held >> capability & 1 for capability in CAPABILITIES)
    return False


def user_namespaces() -> int | None:
    """How many a user may have; None on a kernel without them."""
    try:
        return int(Path("/proc/sys/user/max_user_namespaces").read_text())
    except OSError:
        return None


def kernel() -> tuple[int, ...]:
    """`(6, 1)` for `6.1.0-18-amd64`."""
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, number)) or 0) for number in numbers)
