"""The catalog `front`: functions that are packages behind one prefix, described by their config.json."""

from __future__ import annotations

from pathlib import Path

from stoker.code.describing import Choose, check, describe, read_config
from stoker.code.drafts import Draft, root_named
from stoker.code.sources import Source, check_name
from stoker.code.terms import Terms
from stoker.errors import BadCode, CodeUnavailable
from stoker.types import Function

CATALOG = "front"


class FrontCatalog:
    """Whatever lies behind the prefix is a function of that name."""

    def __init__(self, source: Source | None, terms: Terms, choose: Choose) -> None:
        self._source = source
        self._terms = terms
        self._choose = choose

    def __repr__(self) -> str:
        return f"<FrontCatalog over {self._source!r}>"

    async def draft(self, name: str) -> Draft:
        check_name(name)
        source = self._reachable()
        return Draft(
            key=f"{CATALOG}/{name}",
            fetch=lambda into: source.fetch(name, into),
            find_root=root_named(name),
            read=lambda root: self._read(f"{CATALOG}/{name}", root),
        )

    async def names(self) -> list[str]:
        return await self._reachable().names()

    def _reachable(self) -> Source:
        if self._source is None:
            raise CodeUnavailable("nothing says where packages are: set USER_FUNCTION_URL_PREFIX")
        return self._source

    def _read(self, key: str, root: Path) -> Function:
        wish = read_config(root)
        if wish.runtime is None:
            raise BadCode("config.json has no 'environment'; it must name a runtime, for example 'python3'")
        check(wish, self._terms, BadCode, "config.json: ")
        return describe(key, wish, root, self._terms, self._choose)
