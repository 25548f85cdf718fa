"""The packages that are compared with and replayed: in an environment of their own, which may be missing."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.row import NotMeasured

ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv-bench"


def python() -> Path:
    """The interpreter that has them. Raises `NotMeasured`."""
    if not (ENVIRONMENT / "requirements.stamp").exists():
        raise NotMeasured("its packages are not here: scripts/setup --bench, which needs a network, said why")
    return ENVIRONMENT / "bin" / "python"


def show() -> None:
    """Let this process import them too, where it has none of that name."""
    for folder in map(str, ENVIRONMENT.glob("lib/python3*/site-packages")):
        if folder not in sys.path:
            sys.path.append(folder)
