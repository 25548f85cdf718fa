"""The program of the workshop: one step of a build, run behind walls with the workspace writable.

A function like any other (`build.handler`), in the standard library alone. What it answers is one of
`{"ok": true, "value": ...}` and `{"ok": false, "kind": ..., "message": ...}`; the kinds are
`bad_code`, `build_failed` and `storage_full`.
"""

from __future__ import annotations

import errno
import os
from typing import Any

# Siblings: inside, this folder is the function's own and on the path.
import dependencies  # type: ignore[import-not-found]
import unpacking  # type: ignore[import-not-found]

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_IN_WORDS = ("No space left on device", "ENOSPC", "Disk quota exceeded")  # as pip and npm say it


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Run the step that `event["step"]` names."""
    workspace = event["workspace"]
    try:
        return {"ok": True, "value": STEPS[event["step"]](workspace, event)}
    except unpacking.Rejected as error:
        return _failure("bad_code", str(error))
    except dependencies.ToolFailed as error:
        is_full = any(words in str(error) for words in FULL_IN_WORDS)
        return _failure("storage_full" if is_full else "build_failed", str(error))
    except MemoryError:
        return _failure("bad_code", "the archive needs more memory to unpack than a build may use")
    except OSError as error:
        if error.errno in FULL:
            return _failure("storage_full", "no space left on the disk while building")
        name = os.fsdecode(error.filename or "").removeprefix(workspace)
        return _failure("build_failed", f"{error.strerror or error}: {name}" if name else str(error))


def _failure(kind: str, message: str) -> dict[str, Any]:
    return {"ok": False, "kind": kind, "message": message}


def unpack(workspace: str, event: dict[str, Any]) -> dict[str, int]:
    """`package` into the new folder `tree`, under the caps that the event brings."""
    caps = unpacking.Caps(members=event["max_members"], size_bytes=event["max_bytes"])
    package, tree = os.path.join(workspace, "package"), os.path.join(workspace, "tree")
    os.mkdir(tree, 0o755)
    written: dict[str, int] = unpacking.unpack(package, tree, caps)
    return written


def prepare(workspace: str, event: dict[str, Any]) -> None:
    """What the function's own language needs done once: dependencies installed, bytecode compiled."""
    root = os.path.join(workspace, "tree", event["root"])
    place = dependencies.Place(workspace, root, event["runtime"], event["version"], event["code_path"])
    preparer = dependencies.PREPARERS.get(place.runtime)
    if preparer is not None:
        preparer(place)


STEPS = {"unpack": unpack, "prepare": prepare}
