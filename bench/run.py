"""What a row is given: the node under test, a place for its numbers, and what is opened once for the run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from rich.console import Console

from bench import probes, promised, system
from bench.row import NotMeasured, Series

Thing = TypeVar("Thing")
LAST_ROUND_S, LAST_BEGIN_S = 10.0, 45.0
"""After these a quick run, which may take a minute, begins no further round and no further row.

The first round takes most of a quarter of a minute where there is an engine to start; a look at every goal is
worth more than a second one at some.
"""


class Run:
    """One run: what was measured so far, what could not be and why."""

    def __init__(
        self, sandbox: str, console: Console, is_quick: bool = False, began: float | None = None
    ) -> None:
        self.sandbox = sandbox
        self.is_quick = is_quick
        self.series: Series = {}
        self.missing: dict[str, str] = {}
        self.failures: list[str] = []
        self.seen = promised.Seen()
        self._console = console
        self._began = time.monotonic() if began is None else began
        self._stack = ExitStack()
        self._kept: dict[object, Any] = {}
        self._deployed: set[str] = set()

    def of(self, full: Thing, quick: Thing) -> Thing:
        """How much of something is measured."""
        return quick if self.is_quick else full

    @property
    def rounds(self) -> int:
        return self.of(7, 3)

    @property
    def is_late(self) -> bool:
        """Whether there is no time left for a further row."""
        return self.is_quick and time.monotonic() - self._began > LAST_BEGIN_S

    @property
    def has_rounds_enough(self) -> bool:
        return self.is_quick and time.monotonic() - self._began > LAST_ROUND_S

    def say(self, text: str) -> None:
        """How far it is, after how many seconds."""
        self._console.print(f"{time.monotonic() - self._began:4.0f} s  {text}", style="dim", markup=False)

    # Numbers

    def add(self, name: str, value: float) -> None:
        self.series.setdefault(name, []).append(value)

    def add_latencies(self, name: str, values: list[float]) -> None:
        """`<name>_us` is the median, `<name>_p99_us` what it says."""
        self.add(f"{name}_us", statistics.median(values))
        self.add(f"{name}_p99_us", probes.percentile(values, 99))

    def lack(self, names: Iterable[str], reason: str) -> None:
        """Why these series have no numbers, where they have none."""
        for name in names:
            if name not in self.series:
                self.missing.setdefault(name, reason)

    # Means

    def kept(self, factory: Callable[[], AbstractContextManager[Thing]]) -> Thing:
        """What this opens, opened when it is first asked for and closed with the run."""
        if factory not in self._kept:
            self._kept[factory] = self._stack.enter_context(factory())
        thing: Thing = self._kept[factory]
        return thing

    @property
    def node(self) -> system.System:
        """The node under test, the same for all rounds."""
        return self.kept(self._measured)

    @contextmanager
    def _measured(self) -> Iterator[system.System]:
        with system.running(self.sandbox) as node:
            watch = promised.Watch(node, self.sandbox, self.seen, calls=self.of(promised.CALLS, 1))
            watch.look()
            yield node
            watch.look()

    @contextmanager
    def own_node(self, *arguments: str) -> Iterator[system.System]:
        """A node of a row's own, with further arguments for `stoker start`; its walls are looked at, too.

        Not before it is measured, as the looks leave sandboxes in the very pool that is measured.
        """
        with system.running(self.sandbox, *arguments) as node:
            yield node
            places = promised.PLACES[: self.of(len(promised.PLACES), 1)]
            promised.Watch(node, self.sandbox, self.seen, places, self.of(promised.CALLS, 1)).look()

    def called(self, name: str, reuse: str) -> str:
        """The path by which a no-op function of the node is called, once it was deployed and has answered."""
        if name not in self._deployed:
            self.node.deploy(name, {"reuse": reuse})
            self.node.call(name)
            self._deployed.add(name)
        return f"/functions/{name}/call"

    def need_walls(self) -> None:
        """Raises `NotMeasured` where the sandboxes of this run have none."""
        if self.sandbox != "lean":
            raise NotMeasured(f"{self.sandbox} has no walls")

    def close(self) -> None:
        self._kept.clear()
        self._deployed.clear()
        self._stack.close()
