"""A folder, a source file or an archive as one package to send."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from stoker.cli.exits import USAGE, Failure

LEFT_OUT = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        ".venv",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".DS_Store",
    }
)
ARCHIVES = (".zip", ".tar.gz", ".tgz")
CONFIG = "config.json"
MAX_CONFIG_BYTES = 64 * 1024
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same folder makes the same bytes, and so the same digest


class Package(msgspec.Struct, frozen=True):
    """What is sent, and what the path alone tells of it."""

    name: str
    runtime: str | None
    code: bytes


def pack(path: Path) -> Package:
    """Read what is at `path`. Raises `Failure` when it cannot be read."""
    path = path.absolute()
    try:
        if path.is_dir():
            names = [entry.name for entry in path.iterdir()]
            runtime = _runtime(names, lambda name: (path / name).read_bytes())
            return Package(path.resolve().name, runtime, zip_folder(path))
        _must_be_regular(path)
        runtime = _runtime_of_zip(path) if path.suffix == ".zip" else _by_suffix(path.name)
        return Package(_stem(path), runtime, path.read_bytes())
    except OSError as error:
        raise Failure(f"{error.filename or path} cannot be read: {error.strerror}", USAGE) from None
    except zipfile.BadZipFile as error:
        raise Failure(f"{path} is no zip: {error}", USAGE) from None


def _must_be_regular(path: Path) -> None:
    """Pipes and devices would be read for ever. Raises `Failure`, `OSError`."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Failure(f"{path} is neither a file nor a folder", USAGE)


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in ARCHIVES if path.name.endswith(suffix)), path.suffix)
    return path.name.removesuffix(suffix)


def _runtime(names: Iterable[str], read: Callable[[str], bytes]) -> str | None:
    """The language of a function's own folder: what `config.json` says, else by the entry file."""
    names = set(names)
    if CONFIG in names:
        try:
            said = json.loads(read(CONFIG)).get("environment")
        except (ValueError, AttributeError):
            raise Failure(f"its {CONFIG} is no JSON object", USAGE) from None
        if said is not None:
            return str(said)
    return next((runtime for name in sorted(names) if (runtime := _by_entry(name))), None)


def _by_entry(name: str) -> str | None:
    return _by_suffix(name) if name.startswith(("main.", "index.")) else None


def _by_suffix(name: str) -> str | None:
    languages = {".py": "python", ".js": "nodejs", ".mjs": "nodejs", ".cjs": "nodejs"}
    return languages.get(Path(name).suffix)


def _runtime_of_zip(path: Path) -> str | None:
    """The same for an archive, whose single top folder may be the function's own."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        tops = {name.partition("/")[0] for name in names}
        top = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""

        def read(name: str) -> bytes:
            with archive.open(top + name) as member:
                return member.read(MAX_CONFIG_BYTES)

        return _runtime([name.removeprefix(top) for name in names], read)


def zip_folder(folder: Path) -> bytes:
    """Everything in it but caches and version control. Links to files become files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in _files(folder):
            member = zipfile.ZipInfo(str(file.relative_to(folder)), EPOCH)
            member.external_attr = (0o755 if os.access(file, os.X_OK) else 0o644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, file.read_bytes())
    return buffer.getvalue()


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in LEFT_OUT:
            continue
        if not entry.is_dir():
            _must_be_regular(entry)
            yield entry
        elif entry.is_symlink():
            raise Failure(f"{entry} is a link to a folder; put the folder itself there", USAGE)
        else:
            yield from _files(entry)
