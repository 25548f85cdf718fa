"""Why this machine cannot make lean sandboxes, and what to do about each reason."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

from stoker.linux import nftables
from stoker.linux.rootless import Obstacle, find_obstacle, is_root
from stoker.linux.seccomp import is_available
from stoker.linux.syscalls import OLD, is_supported_machine
from stoker.sandboxes.contract import Problem

# By number: DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, MKNOD.
# Root in a container has but a few of them.
CAPABILITIES = (1, 3, 5, 6, 7, 8, 12, 19, 21, 27)
OLDEST = (5, 12)  # mount_setattr; the newest of what is needed
WITHOUT = "start the node, without any walls, with --sandbox process"
OTHERWISE = f"start it with sudo; or {WITHOUT}"
NEEDED_BY_ROOT = ("user", "map", "overlay")
SYSCTLS = Path("/proc/sys")
APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"


def find_problems() -> list[Problem]:
    """Empty when it can. Asks nothing that leaves a trace."""
    found = []
    if not is_supported_machine():
        known = ", ".join(OLD)
        found.append(Problem(f"lean sandboxes do not know {os.uname().machine}", f"they know {known}"))
    if kernel() < OLDEST:
        remedy = f"lean sandboxes need {'.'.join(map(str, OLDEST))} or newer"
        found.append(Problem(f"Linux {os.uname().release} is too old", remedy))
    if not is_available():
        found.append(Problem("libseccomp.so.2 is missing", "install it: apt install libseccomp2"))
    if not found and os.geteuid() == 0:
        found += _problems_of_root()
    obstacle = None if found else find_obstacle()
    if obstacle is not None and (os.geteuid() != 0 or obstacle.step in NEEDED_BY_ROOT):
        found.append(_problem_of(obstacle))
    return found


def find_egress_problem() -> Problem | None:
    """Why its sandboxes cannot be let out to the internet; None when they can. Leaves no trace."""
    if not is_root():
        return Problem(
            "it changes the machine's network, for which the node has to be started by root", "use sudo"
        )
    if not nftables.is_available():
        return Problem(f"{nftables.LIBRARY} is missing", "install it: apt install nftables")
    if importlib.util.find_spec("dns") is None:
        return Problem("dnspython is missing", "pip install dnspython")
    return None


def _problems_of_root() -> list[Problem]:
    if is_root() and has_capabilities():
        return []
    return [
        Problem(
            "this root has not all of root's powers (it is that of a container or a user namespace)",
            "give the container --privileged, or start the node as an ordinary user, or, without any walls, "
            "with --sandbox process",
        )
    ]


def _problem_of(obstacle: Obstacle) -> Problem:
    """What forbids an ordinary user his namespaces, by the name of what has to be changed."""
    step, number = obstacle
    what = (
        f"this user may not make sandboxes ({_STEPS.get(step, f'a {step} namespace')}: {os.strerror(number)})"
    )
    cause, remedy = _cause_of(step, number)
    return Problem(f"{what}, because {cause}", f"{remedy}; or {OTHERWISE if os.geteuid() else WITHOUT}")


_STEPS = {
    "user": "a user namespace",
    "map": "users of a user namespace",
    "mount": "a mount in a user namespace",
    "overlay": "an overlay over /usr",
    "proc": "/proc in a user namespace",
}


def _cause_of(step: str, number: int) -> tuple[str, str]:
    """Why, and what would help."""
    kind = step if number == errno.ENOSPC else "user"
    limit = _sysctl(f"user/max_{kind}_namespaces")
    if number in (errno.ENOSPC, errno.EUSERS):
        name = f"user.max_{kind}_namespaces"
        return f"the sysctl {name} is {limit}", f"sysctl {name}=15000"
    if step == "user" and number in (errno.EINVAL, errno.ENOSYS):
        return "this kernel was built without user namespaces", "take one that has CONFIG_USER_NS"
    if step == "user" and _sysctl("kernel/unprivileged_userns_clone") == 0:
        name = "kernel.unprivileged_userns_clone"
        return f"the sysctl {name} is 0", f"sysctl {name}=1"
    if _sysctl(APPARMOR) == 1:
        name = APPARMOR.replace("/", ".")
        return (
            f"AppArmor forbids it to programs without a profile (the sysctl {name} is 1)",
            f"sysctl {name}=0, or a profile for {os.path.realpath('/proc/self/exe')} that says `userns,`",
        )
    if step == "overlay":
        return (
            "this kernel has no overlay file system, or /usr is already on two of them, one upon the other",
            "modprobe overlay, or one container less around the node",
        )
    if step == "proc":
        return (
            "parts of /proc are covered here, as in a container",
            "start the container with --security-opt systempaths=unconfined",
        )
    if _is_filtered():
        return (
            "a seccomp filter forbids it, as a container's does",
            "start the container with --security-opt seccomp=unconfined",
        )
    return "a security module or a chroot forbids it", "see the kernel's log (dmesg) for which"


def _sysctl(name: str) -> int | None:
    """Its value; None where this kernel has none of that name."""
    try:
        return int((SYSCTLS / name).read_text())
    except (OSError, ValueError):
        return None


def _is_filtered() -> bool:
    return "\nSeccomp:\t2" in Path("/proc/self/status").read_text()


def missing_group(parent: str) -> Problem:
    """The settings name a cgroup that is no use."""
    return Problem(
        f"the setting cgroup_parent names {parent!r}, and user {os.geteuid()} may make no cgroup there",
        "make it and give it to that user, or leave the setting empty",
    )


def has_capabilities() -> bool:
    """Whether this root can do what the helper has to."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return all(held >> capability & 1 for capability in CAPABILITIES)
    return False


def kernel() -> tuple[int, ...]:
    """`(6, 1)` for `6.1.0-18-amd64`."""
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, number)) or 0) for number in numbers)
