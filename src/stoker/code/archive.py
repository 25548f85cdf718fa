"""Archives as the node meets them: told by their first bytes, and made from folders and single files.

The node itself never opens a stranger's archive: that is a step of the workshop, behind walls.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from stoker.code.storage import storing
from stoker.errors import BadCode, CodeUnavailable
from stoker.types import MEBIBYTE

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second begins a zip without members
GZIP_MAGIC = b"\x1f\x8b"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257


def is_archive(head: bytes) -> bool:
    """Whether bytes that begin so are a zip, a gzip or a tar rather than a source file."""
    is_tar = head[TAR_MAGIC_AT : TAR_MAGIC_AT + len(TAR_MAGIC)] == TAR_MAGIC
    return head.startswith((*ZIP_MAGICS, GZIP_MAGIC)) or is_tar


def pack_source(source: bytes, file: str) -> bytes:
    """One source file as a package: a tar with that file alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(file)
        member.size = len(source)
        archive.addfile(member, io.BytesIO(source))
    return buffer.getvalue()


def pack_folder(folder: Path, name: str, into: Path, max_bytes: int) -> None:
    """A folder as a package with the top folder `name`; the same content gives the same bytes. Blocks.

    Raises `BadCode` (too large), `CodeUnavailable`, `StorageFull`.
    """
    left = max_bytes
    try:
        with storing(f"packing {folder}"), tarfile.open(into, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in _walk(folder):
                member = archive.gettarinfo(path, os.path.join(name, os.path.relpath(path, folder)))
                left -= member.size
                if left < 0:
                    raise BadCode(f"{folder} is larger than max_package_mb, {max_bytes // MEBIBYTE}")
                _add(archive, _without_owner(member), path)
    except OSError as error:
        raise CodeUnavailable(f"{folder} cannot be read: {error.strerror or error}") from error


def _walk(folder: Path) -> Iterator[str]:
    """Everything below a folder, links not followed, always in the same order."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(folders + files))


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if member.isreg():
        with open(path, "rb") as file:
            archive.addfile(member, file)
    else:
        archive.addfile(member)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
