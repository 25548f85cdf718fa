"""Whether all walls are up in the node that is measured: SECURITY.md's probe, deployed to it as a function.

It looks from a sandbox made for the call, from a warm one, from a process made for the call inside a shared
one, and from one that has become its function's zygote; a function of its own and this process leave the
traces that it looks for.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
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
SLOW = "import time\n\ntime.sleep(0.1)\n"  # twice what is worth a zygote
MEMORY_MB = 48  # also a node that has little finds room for two
TRIES = 5
CALLS = 2
"""Of each: the first finds no sandbox of its function, the second whatever the first has left for it."""
ZYGOTE_S = 5.0


class Place(msgspec.Struct, frozen=True):
    """One kind of sandbox to look from."""

    name: str
    reuse: str
    what: str
    has_zygote: bool = False

    @property
    def function(self) -> str:
        return f"walls-{self.name}"

    @property
    def main(self) -> str:
        return SLOW + MAIN if self.has_zygote else MAIN


NEIGHBOUR = Place("neighbour", "process", "the neighbour")
PLACES = (
    Place("fresh", "none", "a sandbox made for the call"),
    Place("warm", "process", "a warm sandbox"),
    Place("shared", "sandbox", "a shared sandbox"),
    Place("zygote", "none", "a sandbox that started from a zygote", has_zygote=True),
)


class BrokenWall(Failed):
    """A number without its walls is none."""


class Seen(msgspec.Struct):
    """What was looked at so far in a run."""

    promised: int = 0
    """How many walls are promised of each sandbox."""
    looks: int = 0
    """How many sandboxes all of them were seen in."""

    @property
    def told(self) -> str:
        if not self.looks:
            return "walls: none was looked at"
        kept = f"{self.promised} of {self.promised}"
        return f"walls: {kept} as promised, in each of {self.looks} looks from inside"


class Watch:
    """The probe in one node, for as many looks as are wanted."""

    def __init__(
        self, node: System, sandbox: str, seen: Seen, places: Sequence[Place] = PLACES, calls: int = CALLS
    ) -> None:
        self._node = node
        self._sandbox = sandbox
        self._promises = _promises(sandbox)
        self._seen = seen
        self._places = places
        self._calls = calls
        runtime = plugins.load("runtimes", "python").Runtime()
        self._given = sorted(runtime.launch(runtime.interpreters()[0]).environment)
        if self._promises:
            files = {f"{PROBE.name}/{file.name}": file.read_text() for file in PROBE.glob("*.py")}
            for place in (NEIGHBOUR, *places):
                config = {"reuse": place.reuse, "memory_mb": MEMORY_MB}
                node.deploy(place.function, config, {**files, "main.py": place.main})

    def look(self) -> None:
        """From inside each kind of sandbox. Raises `BrokenWall`, when one is not as promised."""
        if not self._promises:
            return
        with _traces() as mine:
            for place in self._places:
                for _ in range(self._calls):
                    self._compare(place.what, self._words(place.function, mine))
                    if place.has_zygote:
                        self._wait_for_zygote()

    def _wait_for_zygote(self) -> None:
        """Or until it is clear that this machine makes none."""
        give_up = time.monotonic() + ZYGOTE_S
        while time.monotonic() < give_up and not self._node.ask("GET", "/stats")["data"]["pool"]["zygotes"]:
            time.sleep(0.02)

    def _words(self, name: str, mine: dict[str, Any]) -> dict[str, str]:
        """What one sandbox sees beside a neighbour that is there all the time.

        One that had to make room is not, and others have what it had: its user, its namespaces' numbers.
        """
        for _ in range(TRIES):
            key = _key()
            neighbour = self._node.call(NEIGHBOUR.function, {"do": "leave", "key": key})
            question = {"do": "look", "strangers": [mine, neighbour], "given": self._given}
            try:
                words: dict[str, str] = self._node.call(name, question)
            finally:
                reach.remove(key)  # without walls it stays when the neighbour has gone
                cleared = self._node.call(NEIGHBOUR.function, {"do": "clear"})["cleared"]
            if cleared:
                return words
        raise Failed(
            f"no sandbox of {name} and of its neighbour can be there together, {TRIES} times in a row"
        )

    def _compare(self, place: str, words: dict[str, str]) -> None:
        broken = list(Column(place, self._sandbox, words, self._promises).broken())
        if broken:
            told = "; ".join(f"{wall}: promised {promised}, seen {word}" for wall, promised, word in broken)
            raise BrokenWall(f"walls of {place} are not as promised: {told}")
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


def _promises(sandbox: str) -> dict[str, str]:
    """Those for who starts the node; where that makes no difference, those there are."""
    room = plugins.load("sandboxes", sandbox)
    promises: Mapping[str, dict[str, str]] = getattr(room, "PROMISES", {})
    without_root = promises.get(sandbox + WITHOUT_ROOT) if os.geteuid() != 0 else None
    return without_root or promises.get(sandbox, {})
