"""Whether all walls are up in the node that is measured: SECURITY.md's probe, deployed to it as a function.

It looks from a sandbox made for the call, from a warm one, and from a process made for the call inside a
shared one; a function of its own and this process leave the traces that it looks for.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.client import Failed
from bench.system import System
from stoker import plugins, walls
from stoker.walls import Column
from stoker.walls.inside.stoker_probe import reach
from stoker.walls.visit import WITHOUT_ROOT

PROBE = Path(walls.__file__).parent / "inside" / "stoker_probe"
MAIN = """
from stoker_probe import looking, sight

OPENED = sight.list_open()
TRACES = []


def lambda_handler(event, context):
    return looking.answer(event, TRACES, OPENED)
"""
NEIGHBOUR = "neighbour"
PLACES = {"none": "a sandbox made for the call", "process": "a warm one", "sandbox": "a shared one"}
"""What is looked from, by the `reuse` that it comes of."""
MEMORY_MB = 48  # also a node that has little finds room for two
TRIES = 5
CALLS = 2
"""Of each: the first finds no sandbox of its function, the second whatever the first has left for it."""


class Seen(msgspec.Struct):
    """What was looked at so far in a run."""

    promised: int = 0
    """How many walls are promised of each sandbox."""
    looks: int = 0
    """How many sandboxes all of them were seen in."""

    @property
    def told(self) -> str:
        if not self.looks:
            return "walls: none is promised, none was looked at"
        kept = f"{self.promised} of {self.promised}"
        return f"walls: {kept} as promised, in each of {self.looks} looks from inside"


class Watch:
    """The probe in one node, for as many looks as are wanted."""

    def __init__(self, node: System, sandbox: str, seen: Seen) -> None:
        self._node = node
        self._sandbox = sandbox
        self._promises = _promises(sandbox)
        self._seen = seen
        runtime = plugins.load("runtimes", "python").Runtime()
        self._given = sorted(runtime.launch(runtime.interpreters()[0]).environment)
        if self._promises:
            files = {f"{PROBE.name}/{file.name}": file.read_text() for file in PROBE.glob("*.py")}
            for name, reuse in ((NEIGHBOUR, "process"), *((name, name) for name in PLACES)):
                node.deploy(_name(name), {"reuse": reuse, "memory_mb": MEMORY_MB}, {**files, "main.py": MAIN})

    def look(self) -> None:
        """From inside each kind of sandbox. Raises `Failed` when a wall is not as promised."""
        if not self._promises:
            return
        with _traces() as mine:
            for reuse, place in PLACES.items():
                for _ in range(CALLS):
                    self._compare(place, self._words(_name(reuse), mine))

    def _words(self, name: str, mine: dict[str, Any]) -> dict[str, str]:
        """What one sandbox sees beside a neighbour that is there all the time.

        One that had to make room is not, and others have what it had: its user, its namespaces' numbers.
        """
        for _ in range(TRIES):
            neighbour = self._node.call(_name(NEIGHBOUR), {"do": "leave", "key": _key()})
            question = {"do": "look", "strangers": [mine, neighbour], "given": self._given}
            try:
                words: dict[str, str] = self._node.call(name, question)
            finally:
                cleared = self._node.call(_name(NEIGHBOUR), {"do": "clear"})["cleared"]
            if cleared:
                return words
        raise Failed(
            f"no sandbox of {name} and of its neighbour can be there together, {TRIES} times in a row"
        )

    def _compare(self, place: str, words: dict[str, str]) -> None:
        broken = list(Column(place, self._sandbox, words, self._promises).broken())
        if broken:
            told = "; ".join(f"{wall}: promised {promised}, seen {word}" for wall, promised, word in broken)
            raise Failed(f"walls of {place} are not as promised: {told}")
        self._seen.promised = len(self._promises)
        self._seen.looks += 1


@contextmanager
def _traces() -> Iterator[dict[str, Any]]:
    """What this process leaves on the machine for the probe to find, and must not be found."""
    traces = reach.Traces(_key())
    try:
        yield {**reach.describe(), **traces.leave()}
    finally:
        traces.clear()


def _key() -> int:
    return secrets.randbelow(2**30) + 1


def _name(of: str) -> str:
    return f"walls-{of}"


def _promises(sandbox: str) -> dict[str, str]:
    """Those for who starts the node; where that makes no difference, those there are."""
    room = plugins.load("sandboxes", sandbox)
    promises: Mapping[str, dict[str, str]] = getattr(room, "PROMISES", {})
    without_root = promises.get(sandbox + WITHOUT_ROOT) if os.geteuid() != 0 else None
    return without_root or promises.get(sandbox, {})
