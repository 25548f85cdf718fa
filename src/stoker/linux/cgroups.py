"""Groups of processes that the kernel limits and counts, on whatever this machine has of them.

Version 2 is one tree with every controller; version 1 a tree for each. A machine may have either,
both (then the controllers are mostly on version 1) or none. What works is found by making a group,
never by a version number. Every group of ours stands below `stoker-<node id>` in the group that is ours
to divide (the tree's first for root, else the one we are in, or the one that the settings name), and
nothing else is ever touched.

A group of version 2 that is divided holds no process itself. Where the one we are in is to be divided,
everything in it is moved into a group beside, `stoker-<node id>-node`, and back at the end.

A process joins by `joining`. Version 1: descriptors that the child itself writes "0" to, those of `tasks`
and not of `cgroup.procs`, because a thread that moves itself alone does not need the lock that makes a
move wait for an RCU grace period (50 µs against up to 16 ms). Version 2 has no such way in: there it is
the descriptor that `clone3` takes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stoker.linux.gauges import COUNTERS_V1, COUNTERS_V2, Counter, Gauges
from stoker.linux.processes import describe, kill_and_wait

WANTED = ("memory", "pids", "cpu", "cpuacct")
PERIOD_US = 100_000  # what every group begins with
SWEEP_S = 5.0  # for killed processes to be gone; one that waits for a dead disk may take for ever
RETRY_S = 0.001
HELD = {False: "memory.usage_in_bytes", True: "memory.current"}


class Bounds(NamedTuple):
    """What a group may use."""

    memory_bytes: int
    pids: int
    millicpus: int


class Tree(NamedTuple):
    """What is ours of one mounted hierarchy, with what it controls."""

    root: Path
    """The group that we divide."""
    controllers: frozenset[str]
    version: int


class Group:
    """One group, in as many trees as it takes. Known by its path alone: any process may look at it."""

    def __init__(self, trees: tuple[Tree, ...], path: str) -> None:
        # Texts, no `Path`s: some thirty files of its groups are opened for each sandbox.
        self._path = path
        self.trees = trees
        self.folders = [f"{tree.root}/{path}" for tree in trees]
        self.is_version_2 = any(tree.version == 2 for tree in trees)

    def __repr__(self) -> str:
        return f"<Group {self._path} in {', '.join(str(tree.root) for tree in self.trees) or 'no tree'}>"

    def make(self) -> None:
        """In every tree, or after `OSError` in none."""
        made: list[str] = []
        try:
            for folder in self.folders:
                os.mkdir(folder, 0o755)
                made.append(folder)
        except OSError:
            for folder in made:
                os.rmdir(folder)
            raise

    def joining(self) -> list[int]:
        """Descriptors to join by; the caller closes them."""
        flags = os.O_RDONLY | os.O_DIRECTORY if self.is_version_2 else os.O_WRONLY
        descriptors: list[int] = []
        try:
            for folder in self.folders:
                descriptors.append(os.open(folder if self.is_version_2 else folder + "/tasks", flags))
        except OSError:
            while descriptors:
                os.close(descriptors.pop())
            raise
        return descriptors

    def bound(self, bounds: Bounds) -> None:
        """Set every limit that the machine knows."""
        for tree, folder in zip(self.trees, self.folders, strict=True):
            write = _bound_v2 if tree.version == 2 else _bound_v1
            write(folder, tree.controllers, bounds)

    def gauges(self, others: Gauges | None = None) -> Gauges:
        """Its counters, as far as there are any; the caller closes them. With those of `others`, lent."""
        counters = COUNTERS_V2 if self.is_version_2 else COUNTERS_V1
        gauges = Gauges(counters, {}, {} if others is None else others.opened)
        try:
            for which, counter in enumerate(counters):
                folder = self._folder_of(counter.controller)
                if folder is not None:
                    with suppress(FileNotFoundError):  # older kernels do not count all of them
                        gauges.add(which, f"{folder}/{counter.file}")
        except OSError:
            gauges.close()
            raise
        return gauges

    def _folder_of(self, controller: str) -> str | None:
        for tree, folder in zip(self.trees, self.folders, strict=True):
            if controller in tree.controllers:
                return folder
        return None

    def held_bytes(self) -> int | None:
        """Memory charged to it now, a file that is asked seldom; None where it is not counted."""
        folder = self._folder_of("memory")
        text = None if folder is None else _read(Path(folder, HELD[self.is_version_2]))
        return None if text is None else int(text)

    def processes(self) -> set[int]:
        found: set[int] = set()
        for folder in self.folders:
            found.update(map(int, (_read(Path(folder, "cgroup.procs")) or "").split()))
        return found

    def remove(self) -> None:
        """HOLDS: every process in it has been waited for."""
        for folder in self.folders:
            _remove(folder)


def reset_use(group: Group) -> None:
    """Have processor time counted from nothing again; version 1 alone can."""
    for tree, folder in zip(group.trees, group.folders, strict=True):
        if "cpuacct" in tree.controllers:
            _write(folder + "/cpuacct.usage", 0)


def _remove(folder: str | Path) -> None:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        pass


def _bound_v1(folder: str, controllers: frozenset[str], bounds: Bounds) -> None:
    if "memory" in controllers:
        _bound_memory_v1(folder, bounds.memory_bytes)
    if "pids" in controllers:
        _write(folder + "/pids.max", bounds.pids)
    if "cpu" in controllers:
        _write(folder + "/cpu.cfs_quota_us", _quota_us(bounds))


def _bound_memory_v1(folder: str, size: int) -> None:
    """Memory and memory with swap; the second may at no moment be less than the first."""
    alone, with_swap = folder + "/memory.limit_in_bytes", folder + "/memory.memsw.limit_in_bytes"
    if not _try_write(alone, size):
        _write(with_swap, size)
        _write(alone, size)
        return
    try:
        _write(with_swap, size)
    except FileNotFoundError:  # a kernel that does not count swap
        _write(folder + "/memory.swappiness", 0)


def _bound_memory_v2(folder: str, size: int) -> None:
    _write(folder + "/memory.max", size)
    _try_write(folder + "/memory.swap.max", 0)


def _bound_v2(folder: str, controllers: frozenset[str], bounds: Bounds) -> None:
    if "memory" in controllers:
        _bound_memory_v2(folder, bounds.memory_bytes)
    if "pids" in controllers:
        _write(folder + "/pids.max", bounds.pids)
    if "cpu" in controllers:
        _write(folder + "/cpu.max", f"{_quota_us(bounds)} {PERIOD_US}")


def _quota_us(bounds: Bounds) -> int:
    return max(1000, bounds.millicpus * PERIOD_US // 1000)  # the kernel refuses less than a millisecond


def _read(path: Path) -> str | None:
    """The file's text; None when this kernel has no such file, or the group has gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, 65536).decode()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _write(path: str | Path, value: int | str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} for {value}", str(path)) from None
    finally:
        os.close(descriptor)


def _try_write(path: str | Path, value: int | str) -> bool:
    try:
        _write(path, value)
    except OSError:
        return False
    return True


def _mounted() -> Iterator[tuple[Path, str, frozenset[str]]]:
    """Mount point, file system and options of every cgroup mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            yield Path(before.split(" ")[4]), kind, frozenset(options.split(","))


def find_trees(parent: str = "") -> tuple[Tree, ...]:
    """What we may divide, of trees that control anything of use: those of version 1, else of version 2.

    `parent` is the group's path in each tree; without one it is the first for root, else the one we are in.
    """
    version_1 = [
        Tree(root / _divided(parent, controllers), controllers & frozenset(WANTED), 1)
        for root, kind, controllers in _mounted()
        if kind == "cgroup" and controllers & frozenset(WANTED)
    ]
    if version_1:
        return tuple(tree for tree in version_1 if os.access(tree.root, os.W_OK))
    for mounted, kind, _ in _mounted():
        root = mounted / _divided(parent, frozenset())
        controllers = frozenset((_read(root / "cgroup.controllers") or "").split()) & frozenset(WANTED)
        if kind == "cgroup2" and controllers and os.access(root, os.W_OK):
            return (Tree(root, controllers, 2),)
    return ()


def _divided(parent: str, controllers: frozenset[str]) -> str:
    """Below its tree's mount; that of version 2 has no controllers by name."""
    if parent or os.geteuid() == 0:
        return parent.strip("/")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if (set(names.split(",")) & controllers) if controllers else not names:
            return path.strip("/")
    return ""


class Groups:
    """The groups of one node: everything below `stoker-<node id>` in what is ours of every tree."""

    def __init__(self, trees: tuple[Tree, ...], node_id: str) -> None:
        self.trees = trees
        self._path = f"stoker-{node_id}"

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset().union(*(tree.controllers for tree in self.trees))

    @property
    def counters(self) -> tuple[Counter, ...]:
        """What the gauges of each group of ours tell."""
        return COUNTERS_V2 if any(tree.version == 2 for tree in self.trees) else COUNTERS_V1

    @property
    def counts_use(self) -> bool:
        """Whether they tell of both processor time and memory."""
        return "memory" in self.controllers and not self.controllers.isdisjoint({"cpu", "cpuacct"})

    def keep(self, controllers: frozenset[str]) -> None:
        """Forget the trees without any of these: what another process found to work."""
        self.trees = tuple(tree for tree in self.trees if tree.controllers & controllers)

    def group(self, name: str, trees: tuple[Tree, ...] | None = None) -> Group:
        """In all trees, or in those of them."""
        return Group(self.trees if trees is None else trees, f"{self._path}/{name}")

    def open(self) -> None:
        """Make the node's own group; forget the trees where that cannot be done."""
        self.trees = tuple(tree for tree in self.trees if self._make(tree))

    def bound_all(self, memory_bytes: int) -> None:
        """What all of them together may hold, whatever each may. HOLDS: no group is below ours yet."""
        for tree in self.trees:
            if "memory" in tree.controllers:
                folder = tree.root / self._path
                _try_write(folder / "memory.use_hierarchy", 1)  # before Linux 5.11 nothing below would count
                (_bound_memory_v2 if tree.version == 2 else _bound_memory_v1)(str(folder), memory_bytes)

    def _make(self, tree: Tree) -> bool:
        folder = tree.root / self._path
        try:
            folder.mkdir(0o755, exist_ok=True)
            if tree.version == 2:
                self._divide(tree)
                _write(folder / "cgroup.subtree_control", _switch("+", tree))
        except OSError:
            _remove(folder)
            return False
        return True

    def _divide(self, tree: Tree) -> None:
        """Have its controllers work below it, where no process may be in it then."""
        try:
            _write(tree.root / "cgroup.subtree_control", _switch("+", tree))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            beside = self._beside(tree)
            beside.mkdir(0o755, exist_ok=True)
            move_all(tree.root, beside)
            _write(tree.root / "cgroup.subtree_control", _switch("+", tree))

    def _beside(self, tree: Tree) -> Path:
        return tree.root / f"{self._path}-node"

    def close(self) -> None:
        """Have everybody back where he was before `open`. HOLDS: everything of ours has been swept."""
        for tree in self.trees:
            beside = self._beside(tree)
            if beside.is_dir():
                _try_write(tree.root / "cgroup.subtree_control", _switch("-", tree))
                move_all(beside, tree.root)
                _remove_emptied(beside, time.monotonic() + SWEEP_S)

    def sweep(self) -> None:
        """End everything in our groups and remove them: an earlier life's, or at the end our own.

        Raises `OSError` that says what is left when that takes too long.
        """
        give_up = time.monotonic() + SWEEP_S
        for tree in self.trees:
            # Version 2: the kernel ends all below at once, faster than anything in it can fork.
            _try_write(tree.root / self._path / "cgroup.kill", 1)
            for group, _, _ in os.walk(tree.root / self._path, topdown=False):
                _empty(Path(group), give_up)
                _remove_emptied(Path(group), give_up)


def _switch(sign: str, tree: Tree) -> str:
    """`+cpu +memory`."""
    return " ".join(f"{sign}{name}" for name in sorted(tree.controllers))


def move_all(source: Path, target: Path) -> None:
    """Every process of one group into another; who is made meanwhile is in the next round."""
    while pids := (_read(source / "cgroup.procs") or "").split():
        moved = [_try_write(target / "cgroup.procs", pid) for pid in pids]
        if not any(moved):
            raise OSError(errno.EBUSY, f"its processes {', '.join(pids)} cannot be moved", str(source))


def _empty(folder: Path, give_up: float) -> None:
    """Kill until nothing is in the group: what forks while we kill is found in the next round."""
    while pids := (_read(folder / "cgroup.procs") or "").split():
        left = kill_and_wait([int(pid) for pid in pids], give_up)
        if left:
            raise OSError(errno.EBUSY, f"{', '.join(map(describe, left))} does not end", str(folder))


def _remove_emptied(folder: Path, give_up: float) -> None:
    """A process that has just ended may be in its group for a moment more."""
    while True:
        try:
            _remove(folder)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > give_up:
                raise
        time.sleep(RETRY_S)
