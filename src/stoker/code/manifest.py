"""What is known of a finished build, kept beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec

FORMAT = 1
"""Of what a build leaves; raised when builds of before are of no use."""
MANIFEST = "manifest.json"
CODE = "code"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One folder's."""

    digest: str
    """Of the function's key and its package."""
    key: str
    package: str
    interpreter: str
    """`python-3.11.7`: what dependencies and bytecode were made for."""
    files: int
    size_bytes: int
    made_at: float
    packages: str = ""
    """Names what was installed for it, by its bytes; empty: nothing."""
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_bytes(msgspec.json.encode(self))

    @staticmethod
    def read(folder: Path) -> Manifest | None:
        """None when the folder holds no whole build of ours."""
        try:
            manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            return None
        return manifest if manifest.format == FORMAT and (folder / CODE).is_dir() else None
