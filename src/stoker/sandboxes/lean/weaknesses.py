"""What lean sandboxes do not hold here although elsewhere they do, and what would help."""

from __future__ import annotations

from collections.abc import Iterator

from stoker.sandboxes.contract import Problem

AS_ROOT = "start the node as root"
A_GROUP = (
    "start it in a cgroup of its own (systemd-run --user --scope -p Delegate=yes stoker start …), or name "
    "one that is yours with the setting cgroup_parent"
)
MOUNTED = "mount the cgroup controllers memory, pids and cpu"


def find_weaknesses(is_root: bool, controllers: frozenset[str], limits_pids: bool) -> list[Problem]:
    """Empty when nothing is missing; `controllers` are those of the cgroups that can be made."""
    remedy = MOUNTED if is_root else A_GROUP
    return [*([] if is_root else _of_an_ordinary_user()), *_without_groups(controllers, limits_pids, remedy)]


def _of_an_ordinary_user() -> Iterator[Problem]:
    yield Problem("outside, every sandbox is the user of the node and in his groups", AS_ROOT)
    yield Problem("no function can have the network policy 'egress'", AS_ROOT)


def _without_groups(controllers: frozenset[str], limits_pids: bool, remedy: str) -> Iterator[Problem]:
    if "memory" not in controllers:
        yield Problem("memory is not limited by the kernel but watched, fifty times a second", remedy)
    if not limits_pids:
        yield Problem("the number of processes is not limited", remedy)
    if "cpu" not in controllers:
        yield Problem("shares of processors are not held", remedy)
