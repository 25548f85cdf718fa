"""Which packages a function's code names, and a process that has imported packages alone.

What is imported for several functions must be what each of them would have imported by itself. Their packages
have the same bytes, which the node has seen to; what is seen to here is that the function's code names the
modules, and that none of its own has the name of one that was imported.

Nor may one function know what another holds secret. What a package draws at its import and keeps (a key, a
name) would be known to all: one that draws is not imported for several. numpy may draw, for its generator is
seeded anew in whoever goes on from here (`randomness`).
"""

from __future__ import annotations

import os
import random
import re
import sys

from .failures import LoadFailed
from .loading import DEPENDENCIES, prepare_process

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MOST_FILES, MOST_BYTES, MOST_NAMES = 16, 256 * 1024, 32
_DRAWERS = ("os", "random", "secrets", "uuid", "tempfile")
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([^#;\n]+))", re.MULTILINE)


def import_alone(load: dict[str, Any]) -> None:
    """Import what LOAD names, and leave no word of where that was done. Raises what imports raise."""
    code: str = load["code"]
    before = list(sys.path)
    prepare_process(code, {})
    with _Draws() as draws:
        for name in load["imports"]:
            __import__(name)
    if draws.seen:
        raise LoadFailed("CannotFreeze", f"{draws.seen[0]} draws random numbers, which others would know")
    sys.path[:] = before
    sys.path_importer_cache.pop(code, None)


class _Draws:
    """Sees who draws random numbers meanwhile, as far as that goes through Python."""

    def __enter__(self) -> _Draws:
        self.seen: list[str] = []
        self._is_on = True
        self._state = random.getstate()
        self._draw, self._seed = os.urandom, random.Random.seed
        os.urandom = random._urandom = self._see_draw  # type: ignore[attr-defined]
        random.Random.seed = self._see_seed()  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        self._is_on = False  # who has got hold of ours keeps it
        os.urandom = random._urandom = self._draw  # type: ignore[attr-defined]
        random.Random.seed = self._seed  # type: ignore[method-assign]
        if random.getstate() != self._state:
            self.seen.append("its import")

    def _see_draw(self, size: int) -> bytes:
        self._see()
        return self._draw(size)

    def _see_seed(self) -> Any:
        def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None:
                self._see()
            self._seed(generator, a, version)

        return seed

    def _see(self) -> None:
        frame = sys._getframe(2)
        names = []
        while self._is_on and frame is not None:
            names.append(str(frame.f_globals.get("__name__")))
            frame = frame.f_back  # type: ignore[assignment]
        if self._is_on and not any(name.startswith("numpy.random") for name in names):
            self.seen.append(next((name for name in names if name not in _DRAWERS), names[0]))


def about(load: dict[str, Any]) -> dict[str, list[str]]:
    """What has to hold of a function that goes on from here."""
    return {"imports": list(load["imports"]), "modules": sorted({name.split(".")[0] for name in sys.modules})}


def fits(said: dict[str, Any], load: dict[str, Any]) -> bool:
    """Whether the function of this LOAD may go on from what `about` says."""
    if "imports" not in said:
        return True
    own = {name.split(".")[0] for name in os.listdir(load["code"])}
    named = set(_find_named(load["code"], load["handler"]))
    return not own.intersection(said["modules"]) and all(_is_among(name, named) for name in said["imports"])


def _is_among(name: str, named: set[str]) -> bool:
    return any(one == name or one.startswith(name + ".") for one in named)


def tell(load: dict[str, Any]) -> bytes:
    """The modules of packages that the code names and that have been imported, one in each line."""
    place = os.path.join(load["code"], DEPENDENCIES) + os.sep
    found = sorted({name for name in _find_named(load["code"], load["handler"]) if _is_from(name, place)})
    return "\n".join(found[:MOST_NAMES]).encode("ascii", "ignore")


def _is_from(name: str, place: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec is not None else []
    return any(str(one).startswith(place) for one in places)


def _find_named(code: str, handler: str) -> Iterator[str]:
    """What is named by import statements in the handler's file and in those at the top of the folder."""
    entry = handler.replace("/", ".").rpartition(".")[0].replace(".", os.sep) + ".py"
    files = sorted(name for name in os.listdir(code) if name.endswith(".py"))[:MOST_FILES]
    for name in {entry, *files}:
        try:
            with open(os.path.join(code, name), "rb") as file:
                text = file.read(MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        for module, several in _IMPORT.findall(text):
            words = [module] if module else [part.split()[0] for part in several.split(",") if part.strip()]
            yield from (word for word in words if word.replace(".", "").isidentifier())
