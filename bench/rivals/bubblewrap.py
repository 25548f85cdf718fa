"""bubblewrap and Python: namespaces and a root of this machine's files, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import image
from bench.probes import start_us
from bench.row import NotMeasured

ISOLATION = (
    "own user, pid, mount, ipc, uts, cgroup and net namespaces, read-only root, no_new_privs, no"
    " capabilities; no seccomp, no limit of memory, processes, processor or scratch space"
)


class Wrap:
    """A root file system that is entered anew for every run."""

    def __init__(self, folder: Path) -> None:
        walls = (
            "--unshare-all --die-with-parent --new-session --clearenv --cap-drop ALL --uid 65534 --gid 65534"
        )
        places = f"--ro-bind {folder} / --proc /proc --dev /dev --tmpfs /tmp"
        self._command = ["bwrap", *walls.split(), *places.split(), *image.command()]

    def runs_us(self, count: int) -> list[float]:
        """Microseconds from starting it to its end."""
        return start_us(self._command, count)


@contextmanager
def wrap() -> Iterator[Wrap]:
    """Makes the root file system and removes it. Raises `NotMeasured`."""
    if shutil.which("bwrap") is None:
        raise NotMeasured("no bwrap here (on Debian: apt install bubblewrap)")
    with tempfile.TemporaryDirectory(prefix="stoker-bench-bwrap-") as folder:
        root = image.unpack(Path(folder))
        made = Wrap(root)
        try:
            made.runs_us(1)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise NotMeasured(f"bwrap cannot make namespaces here: {said[-300:]}") from None
        yield made
