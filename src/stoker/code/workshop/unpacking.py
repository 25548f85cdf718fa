"""Unpacks a stranger's zip or tar.gz so that nothing of it lies, links or points outside one folder.

Theory. While members are written there is not one link in the tree: symbolic links are only noted,
and made when everything else is there. So no member can be written through a link, and every path
opened is one of folders we made ourselves. A link may stay when it is relative and what it finally
leads to lies in the tree; hard links only to files unpacked before. Sizes are counted as bytes come
out, never taken from what the archive says of itself. Modes are ours: a+rX, u+w, nothing else.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import resource
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAX_DEPTH = 64
MAX_PART_BYTES = 255  # what Linux file systems take
MAX_NAME_BYTES = 1024  # a quarter of PATH_MAX: room for where the node keeps the folder
MAX_LINK_BYTES = 1024
MAX_RATIO = 200  # deflate reaches 1032 on zeros; source text lies at 4 to 10
RATIO_FREE_BYTES = 16 * 1024 * 1024  # small packages may be as good as they like
TAR_HEADER_BYTES = 4096  # header and extended header of one member, generously
INDEX_MEMORY_BYTES = 512 * 1024 * 1024  # a zip's index of a million members takes 600 MB
CHUNK_BYTES = 256 * 1024

_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
    OverflowError,
)


class Rejected(Exception):
    """The package is not unpacked, for the reason given."""


@dataclass(frozen=True)
class Caps:
    """What a package may unpack to."""

    members: int
    size_bytes: int


@dataclass(frozen=True)
class Member:
    """One entry of an archive, of either format."""

    name: str
    kind: str
    """`file`, `folder`, `link`, `hard link`, or what it is instead: `device`, `pipe`, …"""
    executable: bool = False
    target: str = ""
    content: IO[bytes] | None = None


def unpack(package: str, folder: str, caps: Caps) -> dict[str, int]:
    """Files and bytes written below `folder`. Raises `Rejected`; `OSError` when the disk is full."""
    _cap_memory()
    tree = Tree(folder, caps, os.path.getsize(package))
    with open(package, "rb") as file:
        members = _members(file, caps)
        try:
            for member in members:
                tree.add(member)
        except _BROKEN as error:
            raise Rejected(f"the archive is broken: {str(error) or type(error).__name__}") from error
        except OSError as error:
            # Without a number: said by a decompressor. EINVAL: a zip that points before its beginning.
            if error.errno not in (None, errno.EINVAL):
                raise
            raise Rejected(f"the archive is broken: {error}") from error
    tree.make_links()
    if not tree.files:
        raise Rejected("the archive holds no file")
    return {"files": tree.files, "bytes": tree.size_bytes}


def _cap_memory() -> None:
    """An archive's own index is read as a whole by the standard library; this bounds it."""
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + INDEX_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _members(file: IO[bytes], caps: Caps) -> Iterator[Member]:
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK"):
        return _zip_members(file, caps)
    if head.startswith(b"\x1f\x8b"):
        return _tar_members(gzip.GzipFile(fileobj=file), caps)
    if head[257:262] == b"ustar":
        return _tar_members(file, caps)
    raise Rejected("the package is neither a zip nor a tar.gz")


def _zip_members(file: IO[bytes], caps: Caps) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.orig_filename  # .filename ends at a NUL
            kind = "folder" if name.endswith("/") else _kind_of_mode(info.external_attr >> 16)
            if kind == "link":
                _check_size(name, info.file_size, MAX_LINK_BYTES)
                yield Member(name, kind, target=os.fsdecode(archive.read(info)))
            elif kind == "file":
                _check_size(name, info.file_size, caps.size_bytes)
                with archive.open(info) as content:
                    yield Member(name, kind, bool(info.external_attr >> 16 & 0o100), content=content)
            else:
                yield Member(name, kind)


def _kind_of_mode(mode: int) -> str:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "device, pipe or socket")


def _tar_members(file: IO[bytes] | gzip.GzipFile, caps: Caps) -> Iterator[Member]:
    most = caps.size_bytes + caps.members * TAR_HEADER_BYTES
    with tarfile.open(fileobj=Meter(file, most), mode="r|") as archive:  # type: ignore[call-overload]
        for info in archive:
            archive.members = []  # it would keep every one
            _check_size(info.name, info.size, caps.size_bytes)
            if info.isreg():
                yield Member(info.name, "file", bool(info.mode & 0o100), content=archive.extractfile(info))
            elif info.isdir():
                yield Member(info.name, "folder")
            elif info.issym() or info.islnk():
                yield Member(info.name, "link" if info.issym() else "hard link", target=info.linkname)
            else:
                yield Member(info.name, "device or pipe")


def _check_size(name: str, size_bytes: int, most: int) -> None:
    if not 0 <= size_bytes <= most:
        raise Rejected(f"{_shown(name)} says it has {size_bytes} bytes; at most {most} are allowed")


class Meter:
    """A stream that refuses to give more than it may: what a tar's headers unpack to counts too."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self._file = file
        self._left = most

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Rejected("the archive unpacks to more bytes than allowed")
        return data


class Tree:
    """What has been unpacked so far."""

    def __init__(self, folder: str, caps: Caps, package_bytes: int) -> None:
        self._folder = folder
        self._caps = caps
        self._most_by_ratio = max(package_bytes * MAX_RATIO, RATIO_FREE_BYTES)
        self._kinds: dict[tuple[str, ...], str] = {(): "folder"}
        self._links: list[tuple[Member, tuple[str, ...]]] = []
        self.files = 0
        self.size_bytes = 0

    def add(self, member: Member) -> None:
        """Write one member, or note it when it is a link. Raises `Rejected`."""
        parts = _parts(member.name)
        if member.kind == "folder":
            self._make_folder(parts, member)
            return
        self._make_folder(parts[:-1], member)
        if not parts or _same(parts) in self._kinds:
            raise Rejected(f"{_shown(member.name)} is in the archive twice")
        self._note(parts, member.kind)
        match member.kind:
            case "file":
                self._write(member, parts)
            case "link":
                self._links.append((member, parts))
            case "hard link":
                self._link_hard(member, parts)
            case other:
                raise Rejected(f"{_shown(member.name)} is a {other}, which no package may hold")

    def _note(self, parts: tuple[str, ...], kind: str) -> None:
        self._kinds[_same(parts)] = kind
        if len(self._kinds) - 1 > self._caps.members:
            raise Rejected(f"the archive holds more than {self._caps.members} files and folders")

    def _make_folder(self, parts: tuple[str, ...], member: Member) -> None:
        for end in range(1, len(parts) + 1):
            kind = self._kinds.get(_same(parts[:end]))
            if kind is None:
                self._note(parts[:end], "folder")
                os.mkdir(self._path(parts[:end]), 0o755)
            elif kind != "folder":
                raise Rejected(f"{_shown(member.name)} lies below {_shown('/'.join(parts[:end]))}, a {kind}")

    def _path(self, parts: tuple[str, ...]) -> str:
        return os.path.join(self._folder, *parts)

    def _write(self, member: Member, parts: tuple[str, ...]) -> None:
        assert member.content is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._path(parts), flags, 0o600), "wb", buffering=0) as file:
            while chunk := member.content.read(CHUNK_BYTES):
                self._count(member, len(chunk))
                file.write(chunk)
            os.fchmod(file.fileno(), 0o755 if member.executable else 0o644)
        self.files += 1

    def _count(self, member: Member, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self.size_bytes > self._caps.size_bytes:
            raise Rejected(
                f"the archive unpacks to more than {self._caps.size_bytes} bytes, at {_shown(member.name)}"
            )
        if self.size_bytes > self._most_by_ratio:
            raise Rejected(
                f"the archive unpacks to more than {MAX_RATIO} times its size, at {_shown(member.name)}"
            )

    def _link_hard(self, member: Member, parts: tuple[str, ...]) -> None:
        target = _parts(member.target)
        if self._kinds.get(_same(target)) != "file":
            raise Rejected(
                f"{_shown(member.name)} is a hard link to {_shown(member.target)}, no file before it"
            )
        os.link(self._path(target), self._path(parts), follow_symlinks=False)
        self._note(parts, "file")
        self.files += 1

    def make_links(self) -> None:
        """Make the symbolic links, then see where they lead. Raises `Rejected`."""
        for member, parts in self._links:
            if os.path.isabs(member.target) or not member.target or "\0" in member.target:
                raise Rejected(
                    f"{_shown(member.name)} is a link to {_shown(member.target)}, outside the package"
                )
            os.symlink(member.target, self._path(parts))
        top = os.path.realpath(self._folder)
        for member, parts in self._links:
            end = os.path.realpath(self._path(parts))
            if not end.startswith(top + os.sep) or os.path.islink(end):
                raise Rejected(
                    f"{_shown(member.name)} is a link to {_shown(member.target)}, outside the package"
                )


def _parts(name: str) -> tuple[str, ...]:
    """A member's name as folders and a last name. Raises `Rejected`."""
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise Rejected(f"{_shown(name)} is longer than {MAX_NAME_BYTES} bytes")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    reason = _wrong(name, parts)
    if reason:
        raise Rejected(f"{_shown(name)} {reason}")
    return parts


def _wrong(name: str, parts: tuple[str, ...]) -> str:
    if name.startswith("/"):
        return "is an absolute path"
    if ".." in parts:
        return "leads out of the package"
    if "\\" in name:
        return "has a backslash; archives separate folders by '/'"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has a control character or is not UTF-8"
    if len(parts) > MAX_DEPTH:
        return f"lies deeper than {MAX_DEPTH} folders"
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"has a part longer than {MAX_PART_BYTES} bytes"
    return ""


def _same(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Equal for names that look the same."""
    return tuple(unicodedata.normalize("NFKC", part) for part in parts)


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:80] + "…")
