"""RR: `runc run` of the same no-op, from a bundle made of this machine's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench import image
from bench.client import Failed
from bench.docker import remove_cgroups
from bench.row import NotMeasured

ISOLATION = (
    "own pid, mount, ipc, uts and net namespaces, read-only root, memory and pids limits, no_new_privs;"
    " root with 3 capabilities, no seccomp, no limit of processor"
)
MEMORY = 128 * 2**20
PIDS = 64


class Bundle:
    """A folder that runc can run, any number of times, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runs_us(self, count: int) -> list[float]:
        """Microseconds from starting runc to its end; it removes the container before that."""
        took = []
        for number in range(count):
            command = ["runc", "--root", str(self.folder / "state"), "run", "--bundle", str(self.folder)]
            began = time.perf_counter_ns()
            done = subprocess.run(
                [*command, f"{self.folder.name}-{number}"], capture_output=True, check=False
            )
            took.append((time.perf_counter_ns() - began) / 1000)
            if done.returncode:
                raise Failed(f"runc run: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return took


@contextmanager
def bundle() -> Iterator[Bundle]:
    """Makes a bundle, and removes it with its cgroups. Raises `NotMeasured`."""
    if os.geteuid() != 0:
        raise NotMeasured("runc with limits of its own needs root")
    if shutil.which("runc") is None:
        raise NotMeasured("no runc here (on Debian: apt install runc)")
    folder = Path(tempfile.mkdtemp(prefix="stoker-bench-runc-"))
    try:
        image.unpack(folder)
        subprocess.run(["runc", "spec"], cwd=folder, check=True)
        config = folder / "config.json"
        config.write_bytes(
            msgspec.json.encode(_bounded(msgspec.json.decode(config.read_bytes()), folder.name))
        )
        made = Bundle(folder)
        try:
            made.runs_us(1)
        except Failed as error:
            raise NotMeasured(f"runc cannot make containers here: {error}") from None
        yield made
    finally:
        remove_cgroups(folder.name)
        shutil.rmtree(folder)


def _bounded(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """What `runc spec` suggests, with the no-op for a program, and limits."""
    spec["process"] |= {"terminal": False, "args": image.command()}
    spec["linux"]["cgroupsPath"] = f"/{name}/run"
    spec["linux"]["resources"] |= {"memory": {"limit": MEMORY}, "pids": {"limit": PIDS}}
    return spec
