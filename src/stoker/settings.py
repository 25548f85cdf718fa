"""Every setting, where it may come from, and what is allowed: defaults < file < environment < flags.

The `Settings` struct below is the whole truth: the names of the file's keys, of the `STOKER_*`
variables and of the flags, the ranges, the meanings and `docs/settings.md` all follow from it.
Nothing else reads `stoker.toml` or the environment (invariant 10). What is wrong is a
`SettingsError` that names its source, its value and what would be right.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta
from msgspec import inspect as types

from stoker.egress import read_networks, read_servers
from stoker.errors import SettingsError

FILE = "stoker.toml"
PREFIX = "STOKER_"
NOT_SETTINGS = frozenset({"STOKER_CONFIG", "STOKER_PROMISED"})
"""`STOKER_CONFIG` names the file; `STOKER_PROMISED` tells the tests what this machine can do."""
TRUTH = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
DAY_S = 86_400
MAX_SHOWN = 80  # characters of a bad value in its error

Megabytes = Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)]
Seconds = Annotated[float, Meta(ge=0.001, le=DAY_S)]
Span = Annotated[float, Meta(ge=0, le=30 * DAY_S)]
Age = Annotated[float, Meta(ge=1, le=30 * DAY_S)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Address = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^\S+$")]
FolderName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$")]
Url = Annotated[str, Meta(pattern=r"^((https?|s3|file)://|/).+$", max_length=4096)]
UserName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]*$", max_length=64)]
Keeping = Literal["fixed", "lru", "greedy_dual", "histogram"]
Level = Literal["debug", "info", "warning", "error"]


def _is(meaning: str, env: str | None = None, allowed: str | None = None) -> Meta:
    return Meta(description=meaning, extra={"env": env, "allowed": allowed})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the node goes by; made once, by `load`."""

    home: Annotated[Path, _is("the folder of everything the node keeps", allowed="a path")]
    host: Annotated[Address, _is("the address to listen on", allowed="an address")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), _is("the port to listen on; 0: any free one")] = 8222
    sandbox: Annotated[
        FolderName, _is("the backend of functions that name none", allowed="a backend's name, such as lean")
    ] = "lean"
    user: Annotated[
        UserName, _is("whom a node started by root becomes; empty: `node_uid`", allowed="the name of a user")
    ] = ""
    node_uid: Annotated[
        int, Meta(ge=1, le=2**32 - 2), _is("user and group id a node started by root takes; need not exist")
    ] = 64_321
    cgroup_parent: Annotated[
        str,
        Meta(max_length=4096, pattern=r"^(?!.*\.\.)[^\0\n]*$"),
        _is(
            "the cgroup, in each tree, divided for sandboxes; empty: root's, or the one the node is in",
            allowed="a path without ..",
        ),
    ] = ""
    log_level: Annotated[
        Level, _is("how much the log tells", allowed="one of debug, info, warning, error")
    ] = "info"
    record_keep: Annotated[int, Meta(ge=0, le=10**9), _is("how many newest invocations are kept")] = 100_000

    memory_mb: Annotated[
        Megabytes | None, _is("what all sandboxes may hold, by limit when at work; none: 80 % of the RAM")
    ] = None
    max_calls: Annotated[Count, _is("calls inside the node at once, waiting ones included")] = 1000
    max_calls_per_function: Annotated[Count, _is("the same, for each function; fewer as the node fills")] = (
        250
    )
    max_event_mb: Annotated[float, Meta(gt=0, le=1024), _is("the largest event")] = 6.0
    call_patience_s: Annotated[Seconds, _is("a call's deadline, waiting included")] = 900.0
    keeping: Annotated[
        Keeping,
        _is(
            "which idle sandboxes are kept, and for how long",
            allowed="one of fixed, lru, greedy_dual, histogram",
        ),
    ] = "greedy_dual"
    spares: Annotated[
        int,
        Meta(ge=0, le=64),
        _is("sandboxes of each language in use that wait for anybody, at least; 0: there are none"),
    ] = 2
    keep_s: Annotated[
        Span | None, _is("how long an idle sandbox is kept at most; none: as `keeping` says")
    ] = None

    zygotes_mb: Annotated[
        Annotated[int, Meta(ge=0, le=64 * 1024 * 1024)] | None,
        _is("of `memory_mb`, for what imports have made and is kept; none: a quarter; 0: nothing is kept"),
    ] = None

    renew_s: Annotated[
        Age | None,
        _is("how long sandboxes are forked from one start of an interpreter; none: as long as it lives"),
    ] = 3600.0

    default_memory_mb: Annotated[Megabytes, _is("memory of a sandbox, unless the function says")] = 128
    default_timeout_s: Annotated[Seconds, _is("wall time of a call, unless the function says")] = 30.0
    default_cpu_time_s: Annotated[
        Seconds | None, _is("processor time of a call, unless the function says; none: no limit")
    ] = None
    default_cpus: Annotated[float, Meta(ge=0.01, le=1024), _is("processors a sandbox may use")] = 1.0
    default_pids: Annotated[int, Meta(ge=1, le=4_194_304), _is("processes and threads in a sandbox")] = 64
    default_scratch_mb: Annotated[Megabytes, _is("writable space in a sandbox")] = 64
    max_memory_mb: Annotated[Megabytes | None, _is("what a function may ask for; none: `memory_mb`")] = None
    max_timeout_s: Annotated[Seconds, _is("the longest wall time a function may ask for")] = 900.0

    egress_private: Annotated[
        str,
        Meta(max_length=4096),
        _is(
            "private networks that functions with egress may reach",
            allowed="a list such as 10.1.0.0/16, 10.2.0.7:5432",
        ),
    ] = ""
    dns_servers: Annotated[
        str,
        Meta(max_length=1024),
        _is(
            "the name servers for functions with egress; empty: the host's own",
            allowed="a list of addresses such as 192.0.2.53, 192.0.2.54:5353",
        ),
    ] = ""

    function_url_prefix: Annotated[
        Url | None,
        _is(
            "where the Worker Front finds packages, `<prefix><name>.zip`; none: nowhere",
            env="USER_FUNCTION_URL_PREFIX",
            allowed="http(s)://host/path/, s3://bucket/prefix/, file:///folder/, /folder/ or none",
        ),
    ] = None
    code_size_limit_bytes: Annotated[
        int, Meta(ge=-1, le=2**62), _is("bytes of code kept; -1: no limit", env="USER_CODE_SIZE_LIMIT")
    ] = -1
    pool_limit: Annotated[
        int,
        Meta(ge=-1, le=100_000),
        _is("how many functions have sandboxes waiting; -1: none", env="CONTAINER_POOL_LIMIT"),
    ] = -1
    pool_num: Annotated[
        int, Meta(ge=0, le=10_000), _is("sandboxes waiting for each such function", env="CONTAINER_POOL_NUM")
    ] = 6
    rest_mode: Annotated[
        bool, _is("Worker Front: one shared sandbox a function, a process a call", env="USING_REST_MODE")
    ] = False
    rest_life_s: Annotated[
        Span, _is("how long an idle shared sandbox lives", env="REST_CONTAINER_LIFE_TIME")
    ] = 10.0

    build_timeout_s: Annotated[Seconds, _is("wall time of one build")] = 300.0
    build_memory_mb: Annotated[Megabytes, _is("memory of one build")] = 2048
    build_size_mb: Annotated[Megabytes, _is("the largest folder a build may leave")] = 2048
    build_network: Annotated[
        Literal["host", "egress", "none"],
        _is("where builds find dependencies: as the host does, as a function with egress, or not at all"),
    ] = "host"
    builds_at_once: Annotated[int, Meta(ge=1, le=1024), _is("builds running at the same time")] = 2
    max_package_mb: Annotated[Megabytes, _is("the largest package")] = 256
    max_unpacked_mb: Annotated[Megabytes, _is("the most a package may unpack to")] = 1024
    max_members: Annotated[int, Meta(ge=1, le=10_000_000), _is("files and folders in a package")] = 20_000

    @property
    def node_id(self) -> str:
        """Eight digits that every name this node makes on the host carries; the same for the same home."""
        return hashlib.blake2s(os.fsencode(self.home), digest_size=4).hexdigest()


class Key(msgspec.Struct, frozen=True):
    """What is known of one setting."""

    name: str
    kind: types.Type
    hint: Any
    default: object
    env: tuple[str, ...]
    """The variables that set it, the strongest first."""
    meaning: str
    allowed: str


class Given(msgspec.Struct, frozen=True):
    """One value as somebody wrote it."""

    key: Key
    value: object
    source: str
    folder: Path
    """What a relative path is relative to."""


def keys() -> dict[str, Key]:
    """Every setting, in the order of the documentation."""
    info = types.type_info(Settings)
    assert isinstance(info, types.StructType)
    hints = get_type_hints(Settings, include_extras=True)
    return {field.name: _key(field, hints[field.name]) for field in info.fields}


def _key(field: types.Field, hint: object) -> Key:
    said = field.type
    assert isinstance(said, types.Metadata)
    schema, extra = said.extra_json_schema or {}, said.extra or {}
    env = (PREFIX + field.name.upper(), *([extra["env"]] if extra["env"] else []))
    return Key(
        name=field.name,
        kind=said.type,
        hint=hint,
        default=field.default,
        env=env,
        meaning=schema["description"],
        allowed=extra["allowed"] or _allowed(said.type),
    )


def _allowed(kind: types.Type) -> str:
    match kind:
        case types.UnionType():
            return " or ".join(_allowed(one) for one in kind.types)
        case types.LiteralType():
            return "one of " + ", ".join(map(str, kind.values))
        case types.IntType() | types.FloatType():
            noun = "a whole number" if isinstance(kind, types.IntType) else "a number"
            low = f"from {kind.ge}" if kind.gt is None else f"above {kind.gt}"
            return f"{noun} {low} to {kind.le}"
        case types.BoolType():
            return "true or false"
        case types.NoneType():
            return "none"
    raise TypeError(kind)


def load(flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings in force; reads at most one file and changes nothing.

    `flags` has the settings' names as keys, and `config` for the file's path; None: not given.
    Raises `SettingsError`.
    """
    known = keys()
    strong = {given.key.name: given for given in _from_environment(known, environ, cwd)}
    strong |= {given.key.name: given for given in _from_flags(known, flags, cwd)}
    home = _folder(strong["home"], environ) if "home" in strong else default_home(environ)
    file = _find_file(flags.get("config") or environ.get("STOKER_CONFIG"), cwd, home)
    weak = {given.key.name: given for given in _from_file(known, file)} if file else {}
    if file == home / FILE and "home" in weak and _folder(weak["home"], environ) != home:
        raise SettingsError(f"{weak['home'].source}: home is {home}, where this file is; remove the line")
    chosen = weak | strong
    values: dict[str, Any] = {name: _value(given, environ) for name, given in chosen.items()}
    settings = Settings(**{"home": home, **values})
    _check_together(settings, chosen)
    _check_lists(chosen)
    return settings


def default_home(environ: Mapping[str, str]) -> Path:
    """`/var/lib/stoker` for root, the user's data directory for anybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/stoker")
    data = environ.get("XDG_DATA_HOME")
    return (Path(data) if data else _user_home(environ) / ".local" / "share") / "stoker"


def _user_home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _folder(given: Given, environ: Mapping[str, str]) -> Path:
    text = str(given.value)
    if not text or "\0" in text or not _is_file_name(text):
        raise _refusal(given)
    if text == "~" or text.startswith("~/"):
        text = f"{_user_home(environ)}{text[1:]}"
    return Path(os.path.normpath(given.folder / text))


def _is_file_name(text: str) -> bool:
    try:
        return bool(os.fsencode(text))
    except UnicodeEncodeError:
        return False


def _find_file(said: object, cwd: Path, home: Path) -> Path | None:
    if said:
        return cwd / str(said)
    return next((file for file in (cwd / FILE, home / FILE) if os.path.lexists(file)), None)


def _from_file(known: Mapping[str, Key], file: Path) -> Iterator[Given]:
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: not TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    for name, value in table.items():
        source = f"{file}, line {_line_of(name, text)}"
        if name not in known:
            raise SettingsError(f"{source}: no setting {name!r}; {_nearest(name, known)}")
        yield Given(known[name], value, source, file.parent)


def _line_of(name: str, text: str) -> int:
    """Where a top-level key or table begins; the parser does not tell."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    return next((at for at, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _from_environment(known: Mapping[str, Key], environ: Mapping[str, str], cwd: Path) -> Iterator[Given]:
    """An empty variable counts as not set: compose files and CI pass many such."""
    names = {variable: key for key in known.values() for variable in key.env}
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in names and variable not in NOT_SETTINGS:
            raise SettingsError(f"{variable} in the environment is no setting; {_nearest(variable, names)}")
    for key in known.values():
        for variable in reversed(key.env):
            if environ.get(variable):
                yield Given(key, environ[variable], f"{variable} in the environment", cwd)


def _from_flags(known: Mapping[str, Key], flags: Mapping[str, object], cwd: Path) -> Iterator[Given]:
    for name, value in flags.items():
        if value is None or name == "config":
            continue
        source = "--" + name.replace("_", "-")
        if name not in known:
            raise SettingsError(f"{source} is no setting; {_nearest(name, known)}")
        yield Given(known[name], value, source, cwd)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}"


def _value(given: Given, environ: Mapping[str, str]) -> object:
    """The value in its type and range; raises `SettingsError`."""
    if given.key.name == "home":
        return _folder(given, environ)
    value = given.value
    if isinstance(value, str):
        if isinstance(given.key.kind, types.BoolType):
            value = TRUTH.get(value.lower(), value)
        elif value.lower() == "none" and given.key.default is None:
            return None
    try:
        return msgspec.convert(value, given.key.hint, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise _refusal(given) from None


def _refusal(given: Given) -> SettingsError:
    key, shown = given.key, repr(given.value)
    if len(shown) > MAX_SHOWN:
        shown = shown[:MAX_SHOWN] + "…"
    return SettingsError(f"{given.source}: {shown} is not allowed; {key.name} is {key.allowed}")


def _check_together(settings: Settings, chosen: Mapping[str, Given]) -> None:
    """What a function gets by default must not be more than it could ask for."""
    pairs = (
        ("default_memory_mb", "max_memory_mb"),
        ("default_memory_mb", "memory_mb"),
        ("max_memory_mb", "memory_mb"),
        ("default_timeout_s", "max_timeout_s"),
    )
    for low, high in pairs:
        less, more = getattr(settings, low), getattr(settings, high)
        if less is not None and more is not None and less > more:
            source = (chosen.get(low) or chosen[high]).source
            raise SettingsError(f"{source}: {low} ({less}) is more than {high} ({more})")


def _check_lists(chosen: Mapping[str, Given]) -> None:
    for name, read in (("egress_private", read_networks), ("dns_servers", read_servers)):
        given = chosen.get(name)
        try:
            read(str(given.value) if given else "")
        except ValueError as error:
            assert given is not None
            raise SettingsError(f"{_refusal(given)}: {error}") from None
