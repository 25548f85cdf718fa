"""DR: `docker run` of the same no-op, by an engine of our own with an image made of this machine's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import image
from bench.probes import start_us
from bench.row import NotMeasured

IMAGE = "stoker-bench"
ISOLATION = (
    "own pid, mount, ipc, uts and net namespaces, read-only root, memory and pids limits, seccomp;"
    " root with 14 capabilities, no limit of processor or scratch space"
)
START_S = 30.0


class Engine:
    """A running Docker Engine that nobody else uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = ["docker", "-H", f"unix://{folder}/engine.sock"]

    def say(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.client, *arguments], capture_output=True, check=False)

    def import_image(self) -> None:
        image.write(self.folder / "image.tar")
        done = self.say("import", str(self.folder / "image.tar"), IMAGE)
        if done.returncode:
            raise NotMeasured(f"docker import: {done.stderr.decode().strip()}")

    def runs_us(self, count: int) -> list[float]:
        walls = ["--network", "none", "--read-only", "--memory", "128m", "--pids-limit", "64"]
        return start_us([*self.client, "run", "--rm", *walls, IMAGE, *image.command()], count)


@contextmanager
def engine() -> Iterator[Engine]:
    """Starts an engine and removes every trace of it. Raises `NotMeasured`."""
    if os.geteuid() != 0:
        raise NotMeasured("only root can start an engine of its own")
    missing = [name for name in ("dockerd", "docker") if shutil.which(name) is None]
    if missing:
        raise NotMeasured(f"no {' and no '.join(missing)} here (on Debian: apt install docker.io)")
    folder = Path(tempfile.mkdtemp(prefix="stoker-bench-docker-"))
    log = (folder / "log").open("wb")
    options = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/run", "--pidfile", f"{folder}/pid"]
    options += ["--host", f"unix://{folder}/engine.sock", "--bridge", "none"]
    options += ["--iptables=false", "--ip-forward=false", "--ip-masq=false", "--cgroup-parent", folder.name]
    process = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log)
    log.close()
    try:
        started = Engine(folder)
        _wait_until_it_answers(started, process)
        started.import_image()
        yield started
    finally:
        process.terminate()
        process.wait()
        _unmount_below(folder)
        remove_cgroups(folder.name)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(started: Engine, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        if started.say("version").returncode == 0:
            return
        time.sleep(0.1)
    lines = (started.folder / "log").read_text(errors="replace").strip().splitlines()
    raise NotMeasured(f"dockerd did not come up: {lines[-1][:300] if lines else 'it said nothing'}")


def remove_cgroups(name: str) -> None:
    """Those of this name at the top of each tree, and what is below."""
    for cgroup in (*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")):
        for below in (*sorted(cgroup.glob("*/"), reverse=True), cgroup):
            below.rmdir()


def _unmount_below(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
