"""From the setting `function_url_prefix` to the source it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from stoker.code.sources.contract import Source
from stoker.code.sources.folder import FolderSource
from stoker.errors import SettingsError


def open_source(prefix: str, max_bytes: int, environ: Mapping[str, str] | None = None) -> Source:
    """The source behind a prefix; reaches out to nothing yet. Raises `SettingsError`, `Unsupported`.

    `environ` is where an S3 client finds its credentials; None: this process's own.
    """
    parts = urlsplit(prefix)
    match parts.scheme.lower():
        case "":
            return FolderSource(_with_slash(prefix), max_bytes)
        case "file" if parts.netloc in ("", "localhost"):
            return FolderSource(_with_slash(unquote(parts.path)), max_bytes)
        case "http" | "https" if parts.hostname:
            from stoker.code.sources.web import WebSource

            return WebSource(prefix, max_bytes)
        case "s3" if parts.netloc:
            from stoker.code.sources.bucket import BucketSource

            key = parts.path.lstrip("/")
            return BucketSource(parts.netloc, key, max_bytes, os.environ if environ is None else environ)
    raise SettingsError(
        f"function_url_prefix is {bare(prefix)!r}; there is http(s)://host/path/, s3://bucket/prefix/, "
        "file:///folder/ and /folder/"
    )


def _with_slash(path: str) -> str:
    """`/dir` means what is in that folder; `/dir/test-` is a prefix of names."""
    return path if path.endswith("/") or not os.path.isdir(path) else path + "/"


def bare(address: str) -> str:
    """An address that may be shown to anybody: no user, no password, no query."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}{query}" if parts.scheme else address
