"""From what a package and its deployer say to the `Function` in force: read, checked, bounded, chosen."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec

from stoker.code.drafts import names_in
from stoker.code.terms import Terms
from stoker.egress import MOST_TARGETS, read_target
from stoker.errors import BadCode, Refused
from stoker.types import Function, Interpreter, Network, Reuse

FILE = "config.json"
MAX_CONFIG_BYTES = 64 * 1024
MIN_MEMORY_MB = 8
MOST_MEMORY_MB = 64 * 1024 * 1024  # where the node's own memory is not known
MAX_CONCURRENCY = 10_000
MAX_SHOWN = 60
RESERVED = ".stoker"
KEYS = (
    "environment",
    "handler",
    "reuse",
    "memory_mb",
    "timeout",
    "cpu_time",
    "concurrency",
    "network",
    "egress",
    "sandbox",
    "zygote",
    "interpreter",
)

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Runtime(Protocol):
    """What is asked of a language here."""

    @property
    def name(self) -> str: ...
    @property
    def default_handler(self) -> str: ...
    def entry_file(self, handler: str) -> str: ...


class Installed(Protocol):
    """What is asked of an installed interpreter here."""

    @property
    def version(self) -> str: ...


class Choice(Protocol):
    """The answer to "which interpreter for `python3.7`?"."""

    @property
    def runtime(self) -> Runtime: ...
    @property
    def interpreter(self) -> Installed: ...
    @property
    def note(self) -> str: ...


Choose = Callable[[str], Choice]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a function asks for; None where it says nothing."""

    runtime: str | None = None
    handler: str | None = None
    reuse: Reuse | None = None
    memory_mb: int | None = None
    timeout_s: float | None = None
    cpu_time_s: float | None = None
    concurrency: int | None = None
    max_concurrency: int | None = None
    network: Network | None = None
    egress: tuple[str, ...] | None = None
    sandbox: str | None = None
    zygote: bool | None = None
    interpreter: Interpreter | None = None
    environment: dict[str, str] | None = None
    note: str = ""

    def over(self, weaker: Wish) -> Wish:
        """This wish, and where it says nothing the weaker one."""
        mine = {
            name: value for name, value in msgspec.structs.asdict(self).items() if value not in (None, "")
        }
        return msgspec.structs.replace(weaker, **mine)


def read_config(root: Path) -> Wish:
    """What the package's config.json asks for. Raises `BadCode`."""
    data = _read_small(root / FILE)
    if data is None:
        raise BadCode(f"the package has no {FILE}; it must say which runtime it is for, as its 'environment'")
    return parse_config(data)


def read_config_if_any(root: Path) -> Wish:
    """The same, for packages that need none."""
    data = _read_small(root / FILE)
    return Wish() if data is None else parse_config(data)


def parse_config(data: bytes) -> Wish:
    """A config.json. Keys that are not ours are nothing, but one that looks like ours is noted."""
    try:
        config = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadCode(f"{FILE} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadCode(f"{FILE} is not a JSON object")
    readers: dict[str, Callable[[str, Any], Any]] = {
        "environment": _text,
        "handler": _text,
        "sandbox": _text,
        "memory_mb": _whole,
        "concurrency": _whole,
        "timeout": _span,
        "cpu_time": _span,
        "reuse": _one_of(Reuse),
        "network": _one_of(Network),
        "egress": _targets,
        "zygote": _truth,
        "interpreter": _one_of(Interpreter),
    }
    said = {key: readers[key](key, config[key]) for key in KEYS if config.get(key) is not None}
    renamed = {"environment": "runtime", "timeout": "timeout_s", "cpu_time": "cpu_time_s"}
    return Wish(**{renamed.get(key, key): value for key, value in said.items()}, note=_misspelt(config))


def _misspelt(config: dict[str, Any]) -> str:
    near = {key: difflib.get_close_matches(key, KEYS, 1, 0.8) for key in config if key not in KEYS}
    return "; ".join(
        f"{FILE}: {key!r} is ignored, did you mean {found[0]!r}?" for key, found in near.items() if found
    )


def _refuse(key: str, value: object, allowed: str) -> NoReturn:
    shown = msgspec.json.encode(value).decode()
    shown = shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "…"
    raise BadCode(f"{FILE}: {key!r} is {shown}; it must be {allowed}")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 256 or not value.isprintable():
        _refuse(key, value, "a string of 1 to 256 printable characters")
    return value


def _whole(key: str, value: Any) -> int:
    if type(value) is not int:
        _refuse(key, value, "a whole number")
    return value


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        _refuse(key, value, "true or false")
    return value


def _span(key: str, value: Any) -> float:
    """Seconds, from `30`, `2.5`, `"30s"`, `"500ms"`, `"2m"`."""
    if type(value) in (int, float):
        return float(value)
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        _refuse(key, value, 'a number of seconds, or a string such as "30s", "500ms" or "2m"')
    return float(match[1]) * _UNIT_S[match[2]]


def _one_of(kind: type[StrEnum]) -> Callable[[str, Any], Any]:
    def read(key: str, value: Any) -> StrEnum:
        words = [one.value for one in kind if one is not Network.HOST]
        if value not in words:
            _refuse(key, value, f"one of {', '.join(words)}" if len(words) > 1 else f"{words[0]!r}")
        return kind(value)

    return read


def _targets(key: str, value: Any) -> tuple[str, ...]:
    """A list of what may be reached, each as it is read."""
    if not isinstance(value, list) or len(value) > MOST_TARGETS:
        _refuse(key, value, f"a list of at most {MOST_TARGETS} targets")
    try:
        return tuple(str(read_target(item if isinstance(item, str) else "")) for item in value)
    except ValueError as error:
        _refuse(key, value, f"a list of targets, each {error}")


def check(wish: Wish, terms: Terms, refusal: type[Refused], where: str = "") -> None:
    """Whether this node grants what is asked for. Raises `refusal`, naming key, value and range."""
    most_memory = terms.max_memory_mb or terms.memory_mb or MOST_MEMORY_MB
    ranges = (
        ("memory_mb", wish.memory_mb, MIN_MEMORY_MB, most_memory, ""),
        ("timeout", wish.timeout_s, 0.001, terms.max_timeout_s, " s"),
        ("cpu_time", wish.cpu_time_s, 0.001, terms.max_cpu_time_s, " s"),
        ("concurrency", wish.concurrency, 1, MAX_CONCURRENCY, ""),
        ("max_concurrency", wish.max_concurrency, 0, MAX_CONCURRENCY, ""),
    )
    for key, value, least, most, unit in ranges:
        if value is not None and not least <= value <= most:
            allowed = f"{least:.12g} to {most:.12g}{unit}"
            raise refusal(f"{where}{key!r} is {value:.12g}{unit}; this node allows {allowed}")
    if wish.cpu_time_s is not None and (wish.concurrency or 1) > 1:
        raise refusal(
            f"{where}'cpu_time' is for calls that can be told apart; with it 'concurrency' must be 1"
        )
    if wish.network is Network.HOST:
        raise refusal(f"{where}'network' is 'host'; there is 'none' and 'egress'")


def _check_together(wish: Wish, refusal: type[Refused], where: str) -> None:
    if wish.cpu_time_s is not None and (wish.concurrency or 1) > 1:
        raise refusal(
            f"{where}'cpu_time' is {wish.cpu_time_s:.12g} s and 'concurrency' is {wish.concurrency}; with a "
            "limit of processor time it must be 1: nobody can tell the times of calls in one process apart"
        )


def describe(key: str, wish: Wish, root: Path, terms: Terms, choose: Choose) -> Function:
    """The function in force, its code in `root`; its revision is still to be given. Blocks.

    Raises `BadCode`, and what `choose` raises for a runtime that is not here.
    """
    name = key.partition("/")[2]
    if not wish.runtime:
        raise BadCode(f"nothing says which runtime {name!r} is for")
    if os.path.lexists(root / RESERVED) and not stat.S_ISDIR(os.lstat(root / RESERVED).st_mode):
        raise BadCode(f"{RESERVED!r} is Stoker's own folder; no package may hold a file or link of that name")
    if wish.egress and wish.network is not Network.EGRESS:
        raise BadCode("'egress' is given, but 'network' is 'none'; it must be 'egress'")
    choice = choose(wish.runtime)
    handler = wish.handler or choice.runtime.default_handler
    _check_entry(name, handler, choice.runtime, root)
    _check_together(wish, BadCode, "")
    base = terms.limits()
    is_alone = (wish.concurrency or 1) == 1  # of calls at once in one process nobody can tell the times
    return Function(
        key=key,
        name=name,
        runtime=choice.runtime.name,
        version=choice.interpreter.version,
        handler=handler,
        revision="",
        limits=msgspec.structs.replace(
            base,
            memory_mb=wish.memory_mb or base.memory_mb,
            timeout_s=wish.timeout_s or base.timeout_s,
            cpu_s=wish.cpu_time_s or (base.cpu_s if is_alone else None),
        ),
        reuse=wish.reuse,
        concurrency=wish.concurrency or 1,
        max_concurrency=wish.max_concurrency or 0,
        network=wish.network or Network.NONE,
        egress=wish.egress or (),
        sandbox=wish.sandbox,
        environment=wish.environment or {},
        zygote=wish.zygote is not False,
        interpreter=wish.interpreter or Interpreter.FORKED,
        note="; ".join(note for note in (choice.note, wish.note) if note),
    )


def _check_entry(name: str, handler: str, runtime: Runtime, root: Path) -> None:
    entry = runtime.entry_file(handler)
    parts = entry.split("/")
    if entry.startswith("/") or ".." in parts or "\0" in entry:
        raise BadCode(f"the handler {handler!r} of {name!r} leads out of the package")
    if not _is_inside(root / entry, root):
        raise BadCode(
            f"the package of {name!r} has no {entry}, which {runtime.name} needs "
            f"for the handler {handler!r}; it holds {names_in(root)}"
        )


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path leads to a file of the package. HOLDS: nobody changes the package meanwhile.

    A build may have left a link to anywhere; not even whether that exists is anybody's business.
    """
    end = os.path.realpath(path)
    return end.startswith(os.path.realpath(root) + os.sep) and os.path.isfile(end)


def _read_small(path: Path) -> bytes | None:
    """A file that a stranger made: no link, no pipe, not large. None: there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadCode(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_CONFIG_BYTES:
            raise BadCode(f"{path.name} is no file of at most {MAX_CONFIG_BYTES} bytes")
        return os.read(file, MAX_CONFIG_BYTES)
    finally:
        os.close(file)


def revised(function: Function, digest: str) -> Function:
    """The function with its revision: other code or other configuration gives another."""
    plain = msgspec.structs.replace(function, revision="", note="")
    said = msgspec.json.encode(plain, order="deterministic")
    return msgspec.structs.replace(function, revision=hashlib.sha256(digest.encode() + said).hexdigest()[:32])
