"""What was seen in each sandbox, beside what is promised of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from stoker.walls.table import WALLS, weaker

DOCKER = "docker"


class Column(msgspec.Struct, frozen=True):
    """One kind of sandbox."""

    name: str
    backend: str = ""
    words: dict[str, str] = {}
    """Each probe's, by its name; empty where it could not be looked at."""
    promises: dict[str, str] = {}
    """Each wall's, by its name; what is not named is not promised."""
    problem: str = ""
    """Why it could not be looked at."""

    def broken(self) -> Iterator[tuple[str, str, str]]:
        """Wall, what is promised, what is seen, wherever they differ."""
        for wall in WALLS:
            promised, seen = self.promises.get(wall.name), wall.summary(self.words)
            if promised is not None and promised != seen:
                yield wall.name, promised, seen

    @property
    def is_kept(self) -> bool:
        """Whether it was seen, and everything promised with it."""
        return bool(self.words) and not any(self.broken())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        seen = {wall.name: wall.summary(self.words) for wall in WALLS if self.words}
        walls = {name: {"seen": word, "promised": self.promises.get(name)} for name, word in seen.items()}
        return {"kept": self.is_kept, "problem": self.problem, "walls": walls, "probes": self.words}


class Report(msgspec.Struct, frozen=True):
    """Everything that was seen."""

    sandbox: str
    """The default one."""
    columns: tuple[Column, ...]

    @property
    def is_kept(self) -> bool:
        """Whether every wall of the default sandbox is as promised."""
        return any(column.backend == self.sandbox and column.is_kept for column in self.columns)

    @property
    def heads(self) -> tuple[str, ...]:
        return "wall", *(column.name for column in self.columns if column.words)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """For a table: what is not as promised has a cross and the promise."""
        seen = [column for column in self.columns if column.words]
        for wall in WALLS:
            yield wall.name, *(self._cell(column, wall.name, wall.summary(column.words)) for column in seen)

    def remarks(self) -> Iterator[str]:
        """What was not looked at and why; where the default sandbox is weaker than Docker's."""
        for column in self.columns:
            if column.problem:
                yield f"{column.name}: {column.problem}"
        for name, probes in self.weaker_than_docker().items():
            if probes:
                yield f"{name}: weaker than Docker's default in {', '.join(probes)}"

    def weaker_than_docker(self) -> dict[str, list[str]]:
        """The probes that find a wall there and none here, for each of our sandboxes with promised walls."""
        theirs = [column.words for column in self.columns if column.name == DOCKER and column.words]
        return {
            column.name: list(weaker(column.words, theirs[0]))
            for column in self.columns
            if theirs and column.words and column.promises.get("seccomp filter") == "on"
        }

    @staticmethod
    def _cell(column: Column, wall: str, seen: str) -> str:
        promised = column.promises.get(wall)
        return seen if promised in (None, seen) else f"✗ {seen}\npromised: {promised}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        columns = {column.name: column.as_json() for column in self.columns}
        return {
            "sandbox": self.sandbox,
            "kept": self.is_kept,
            "weaker_than_docker": self.weaker_than_docker(),
            "columns": columns,
        }
