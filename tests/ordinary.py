"""Runs things as a user who is nobody in particular, with a home of his own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import leaks
from stoker.linux import privileges

ROOT = Path(__file__).resolve().parents[1]
ORDINARY = 41_234
BECOME = f"""
import os, sys
from pathlib import Path
from stoker.linux import privileges
privileges.give_up("", {ORDINARY}, [*privileges.own_code(), Path({str(ROOT)!r}), Path(os.environ["HOME"])])
"""
GO_ON = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"

Done = subprocess.CompletedProcess[str]

NOT_THEIRS = ("STOKER_", "XDG_", leaks.WATCHED)


def run(home: Path, *arguments: str, before: str = "", **environment: str) -> Done:
    """Python with these arguments, as that user in that home; `before` is done when he has become it."""
    os.chown(home, ORDINARY, ORDINARY)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THEIRS)}
    places = [str(ROOT / "src"), str(ROOT / "tests"), *map(str, privileges.own_code())]
    own = {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(
        [sys.executable, "-c", BECOME + before + GO_ON, *arguments],
        cwd=home,
        env=kept | own | environment,
        capture_output=True,
        text=True,
        check=False,
    )
