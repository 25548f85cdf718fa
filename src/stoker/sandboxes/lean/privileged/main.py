"""The helper's one task: to make and to end sandboxes, as the node says (`maker`).

Started by the node while it still has its privileges, which the node then gives up; it ends with everything
it made when the node ends. Should it die before that, its guardian forks a new one.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from stoker.linux.cgroups import Groups, Tree
from stoker.linux.mounts import MountNamespace
from stoker.linux.network import Networks
from stoker.linux.places import Places
from stoker.linux.rootless import become_root_of_own
from stoker.linux.syscalls import pidfd_open
from stoker.linux.users import UserNamespaces
from stoker.sandboxes.lean.egress.block import claim_block, tag_of
from stoker.sandboxes.lean.egress.way import Way, sweep
from stoker.sandboxes.lean.packets import (
    FAILED,
    MAX_TEXT,
    pack,
    send,
)
from stoker.sandboxes.lean.privileged.guardian import guard, succeed
from stoker.sandboxes.lean.privileged.loop import Loop
from stoker.sandboxes.lean.privileged.maker import Helper
from stoker.sandboxes.lean.privileged.sandbox import Means, Slots
from stoker.sandboxes.lean.privileged.spares import Spares
from stoker.sandboxes.lean.privileged.zygotes import Start

SLOTS = 65_535  # of the 65,536 user ids of a node; the last is the resolver's


def main() -> None:
    """Guardian and helper. Settings on standard input, the node on the descriptor named there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the node does, never before
    if os.geteuid() != 0:
        become_root_of_own()
        os.execv(sys.executable, sys.orig_argv)
    config = marshal.loads(sys.stdin.buffer.read())
    if config["is_root"]:
        os.setgroups([])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    link = socket.socket(fileno=config["link"])
    try:
        place = succeed(config["node_id"])
    except TimeoutError:
        text = (
            f"another node with the id {config['node_id']} is running; stop it, or give this one another home"
        )
        send(link, pack(FAILED, 0, text.encode()))
        return
    os.chdir("/")
    os.umask(0o022)
    node, guardian = pidfd_open(config["node"]), pidfd_open(os.getpid())
    guard(link, lambda first: live(config, first, link, node, guardian), lambda: sweep_all(config))
    groups_of(config).close()
    place.close()


def groups_of(config: dict[str, Any]) -> Groups:
    trees = (Tree(Path(root), frozenset(names), version) for root, names, version in config["trees"])
    return Groups(tuple(trees), config["node_id"])


def live(config: dict[str, Any], first: int, link: socket.socket, node: int, guardian: int) -> None:
    """One helper, until the node or the guardian ends; `node` and `guardian` are pidfds."""
    groups = groups_of(config)
    try:
        sweep_all(config)
    except OSError as error:
        text = f"what an earlier life of this node left cannot be removed: {error}"
        send(link, pack(FAILED, 0, text.encode()[:MAX_TEXT]))
        return
    tag = tag_of(config["node_id"])
    block = claim_block(tag) if config["is_root"] else None
    loop = Loop()
    way = Way(
        tag,
        block,
        config["egress"],
        lambda descriptor, call: loop.watch(descriptor, call) if call else loop.unwatch(descriptor),
    )
    means = Means(
        groups,
        Places(groups),
        Networks(can_come_back=config["is_root"]),
        MountNamespace(can_enter_any=config["is_root"]),
        node,
        UserNamespaces(),
        Slots(SLOTS),
        config["uid_base"] if config["is_root"] else 0,
        config["bounds_processes"],
        way,
        config["code_path"],
        config["workspace_path"],
    )
    starts = [Start(*(*start, block.gateway if block else "")) for start in config["starts"]]
    helper = Helper(link, first, means, loop, Spares(len(os.sched_getaffinity(0))))
    try:
        helper.open(starts, tuple(config["filters"]), config["eager"], config["memory_bytes"])
        loop.watch(guardian, helper.close)
        loop.run(helper.make_spare, helper.is_short_of_spares)
    finally:
        groups.sweep()  # a fault of ours must not outlive us either
        way.close()


def sweep_all(config: dict[str, Any]) -> None:
    """Remove what a helper that died has left. Raises `OSError` that says what cannot be removed.

    A network that cannot be does no harm to who needs no egress.
    """
    groups_of(config).sweep()
    try:
        if config["is_root"]:
            sweep(tag_of(config["node_id"]))
    except OSError as error:
        print(f"egress: what an earlier life left cannot be removed: {error}", file=sys.stderr, flush=True)
