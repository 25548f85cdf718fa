"""Host files on their way into builds: small ones as copies of our own, folders as they are."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from stoker.errors import SettingsError
from stoker.linux.removal import remove
from stoker.sandboxes.contract import Show
from stoker.types import MEBIBYTE

INSIDE = "/app/settings"
MAX_FILE_BYTES = 16 * MEBIBYTE  # the largest bundle of certificates is a tenth of this
MAX_PAGES = 200
ALWAYS_SEEN = ("/usr/", "/etc/ssl/certs/", "/etc/pki/")

_LINK = re.compile(rb"""href\s*=\s*["']([^"'#]+)""", re.IGNORECASE)

log = logging.getLogger(__name__)


class Luggage:
    """Collects what builds are to see, and copies what only root may read into one private folder.

    HOLDS: root may be at work here in a home that belongs to somebody else, whose processes may be
    alive. So the folder is ours alone until everything is in it, and nothing in it is named by a path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shows: dict[str, Show] = {}
        self._copies: dict[Path, str | None] = {}
        self._descriptor = -1

    def __enter__(self) -> Self:
        with suppress(FileNotFoundError):  # nothing of an earlier start, nor what somebody put in its place
            remove(self._folder.parent, self._folder.name)
        self._folder.mkdir(0o700)
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(self._descriptor).st_uid != os.geteuid():
            raise SettingsError(
                f"{self._folder} was exchanged while it was made; who else writes to the home?"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._give(self._descriptor, 0o700)
        os.close(self._descriptor)

    @property
    def shows(self) -> tuple[Show, ...]:
        return tuple(self._shows.values())

    def show(self, source: Path, target: str) -> None:
        """Let builds see a file or folder at a path of ours; the first for a path stays."""
        self._shows.setdefault(target, Show(str(source), target))

    def show_folder(self, folder: Path) -> None:
        """Let builds see a folder at its own path, where settings expect it."""
        path = str(folder)
        if folder.is_dir() and path != "/" and not f"{path}/".startswith(ALWAYS_SEEN):
            self.show(folder.resolve(), path)

    def write(self, name: str, content: bytes) -> str:
        """A file of ours; its path inside."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=self._descriptor), "wb") as file:
            file.write(content)
            # Readable for the sandbox's own user; who is not in a build is stopped by the folder's mode.
            self._give(file.fileno(), 0o644)
        target = f"{INSIDE}/{name}"
        self.show(self._folder / name, target)
        return target

    def copy(self, path: Path) -> str | None:
        """A copy of a file of the host, one for each; its path inside, None when it cannot be read."""
        if path not in self._copies:
            self._copies[path] = self._copy(path)
        return self._copies[path]

    def _copy(self, path: Path) -> str | None:
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_FILE_BYTES)
        except OSError as error:
            log.warning("%s is named by a setting for builds, but cannot be read: %s", path, error.strerror)
            return None
        return self.write(f"{len(self._copies) + 1}-{path.name}", content)

    def _give(self, descriptor: int, mode: int) -> None:
        """To the owner of the home."""
        os.fchmod(descriptor, mode)
        if os.geteuid() == 0:
            owner = os.stat(self._folder.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def take_along(self, word: str) -> str:
        """What a word of a setting must become inside: paths are taken along, all else stays itself."""
        is_url = word.startswith("file://")
        path = Path(unquote(urlsplit(word).path) if is_url else os.path.expanduser(word))
        if not path.is_absolute():
            return word
        if path.is_file():
            copied = self.copy(path)
            return copied if copied and not is_url else word
        self.show_folder(path)
        for folder in linked_folders(path):
            self.show_folder(folder)
        return word if is_url else str(path)


def linked_folders(index: Path) -> set[Path]:
    """Folders outside a local package index that its pages link to.

    An index's pages may name files anywhere: `simple/jinja2/index.html` links to `../../files/….whl`.
    """
    folders: set[Path] = set()
    pages = [*index.glob("*.html"), *index.glob("*/index.html")] if index.is_dir() else []
    for page in pages[:MAX_PAGES]:
        links = (found.decode("utf-8", "replace") for found in _LINK.findall(page.read_bytes()[:MEBIBYTE]))
        folders |= {folder for link in links if (folder := _folder_of(link, page, index)) is not None}
    return folders


def _folder_of(link: str, page: Path, index: Path) -> Path | None:
    parts = urlsplit(link)
    if parts.scheme not in ("", "file"):
        return None
    target = Path(os.path.normpath(page.parent / unquote(parts.path)))
    if target.is_relative_to(index) or not target.exists():
        return None
    beside = index.parent
    if target.is_relative_to(beside) and target.parent != beside:
        return beside / target.relative_to(beside).parts[0]
    return target.parent if target.parent != beside else None
