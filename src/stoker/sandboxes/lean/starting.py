"""What the helper starts from, and what it is told when it does."""

from __future__ import annotations

import os
import sys
from typing import Any

from stoker.linux.seccomp import compile_policy
from stoker.sandboxes.contract import CODE_PATH, WORKSPACE_PATH, Launch
from stoker.sandboxes.lean.policy import POLICY, WALLS
from stoker.sandboxes.lean.settings import Settings
from stoker.types import MEBIBYTE

# What the helper starts from: our modules, but not this package's `__init__`, which would bring the node in.
START = """\
import sys, types
room = types.ModuleType("stoker.sandboxes.lean")
room.__path__ = [sys.argv[2] + "/stoker/sandboxes/lean"]
sys.path.append(sys.argv[2])
sys.modules[room.__name__] = room
from stoker.sandboxes.lean.privileged.main import main
main()
"""
RESOLVE = START.replace("privileged", "resolver")


def words(settings: Settings, launches: tuple[Launch, ...], is_root: bool, source: str) -> dict[str, Any]:
    """The settings and launches as the helper is told them; `source` is where our modules are."""
    starts = [
        (
            launch.name,
            launch.argv,
            tuple(launch.environment.items()),
            tuple((os.path.realpath(show.source), show.target) for show in launch.shows),
            launch.fork,
            is_root,
        )
        for launch in launches
    ]
    filters = compile_policy(POLICY, until_last=WALLS)
    return {
        "node_id": settings.node_id,
        "uid_base": settings.first_uid,
        "egress": (
            settings.egress_private,
            settings.name_servers(),
            settings.resolver_uid,
            _resolver(settings.node_id, source),
            filters,
        ),
        "code_path": CODE_PATH,
        "workspace_path": WORKSPACE_PATH,
        "filters": filters,
        "eager": settings.eager,
        "memory_bytes": (settings.memory_mb or 0) * MEBIBYTE,
        "starts": starts,
    }


def _resolver(node_id: str, source: str) -> tuple[str, ...]:
    """How it is started."""
    return (sys.executable, "-I", "-c", RESOLVE, f"stoker-resolver-{node_id}", source)
