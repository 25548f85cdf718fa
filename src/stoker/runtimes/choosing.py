"""Which interpreter a function gets that asks for `python3.7`, `nodejs12.x` or just `python`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from stoker.errors import BadCode
from stoker.runtimes.contract import Interpreter, Runtime, parse_version

_WANTED = re.compile(r"(?P<language>[a-z]+)[-_ ]?(?P<version>\d{1,4}(\.\d{1,4}){0,2})?(\.x)?", re.IGNORECASE)
MAX_TOLD = 80  # characters of what is wanted in an error


class Choice(msgspec.Struct, frozen=True):
    """What a function runs on, and what its callers should know about that."""

    runtime: Runtime
    interpreter: Interpreter
    note: str = ""


def choose(runtimes: Sequence[Runtime], wanted: str) -> Choice:
    """The installed interpreter nearest to what is wanted, of that language. Raises `BadCode`."""
    match = _WANTED.fullmatch(wanted.strip())
    runtime = match and _find_language(runtimes, match["language"].lower())
    if not match or not runtime:
        raise BadCode(f"there is no runtime {wanted[:MAX_TOLD]!r} here; there is {_tell(runtimes)}")
    installed = runtime.interpreters()
    if not installed:
        reasons = "; ".join(map(str, runtime.problems()))
        raise BadCode(f"no {runtime.name} is installed here for {wanted!r}: {reasons}")
    if not match["version"]:
        return Choice(runtime, runtime.default())
    return _choose_version(runtime, installed, parse_version(match["version"]), wanted.strip())


def _find_language(runtimes: Sequence[Runtime], spelling: str) -> Runtime | None:
    return next((runtime for runtime in runtimes if spelling in runtime.spellings), None)


def _choose_version(
    runtime: Runtime, installed: Sequence[Interpreter], version: tuple[int, ...], wanted: str
) -> Choice:
    fitting = [each for each in installed if _is_of(each.version, version)]
    if fitting:
        default = runtime.default()
        return Choice(runtime, default if default in fitting else fitting[0])
    nearest = min(installed, key=lambda each: _distance(each.version, version))
    note = f"{wanted} is not installed; running on {runtime.name} {nearest.version}"
    return Choice(runtime, nearest, note)


def _is_of(version: str, wanted: tuple[int, ...]) -> bool:
    """Whether a version is the wanted one, or one of the wanted series."""
    return parse_version(version)[: len(wanted)] == wanted


def _distance(version: str, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """How far a version is from the wanted one: smaller is nearer; the newer of two as near is nearer."""
    own = parse_version(version)
    apart = tuple(abs(mine - theirs) for mine, theirs in zip(own, wanted, strict=False))
    return (*apart, *(-part for part in own))


def _tell(runtimes: Sequence[Runtime]) -> str:
    told = (
        f"{runtime.name} ({', '.join(each.version for each in runtime.interpreters()) or 'not installed'})"
        for runtime in runtimes
    )
    return ", ".join(told) or "none"
