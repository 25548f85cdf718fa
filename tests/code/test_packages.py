"""Packages are told by their bytes, and shown alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.code.packages import PLACE, copy_packages, digest_packages

FILES = {"a/__init__.py": b"A = 1\n", "a/b.so": b"\0\1", "c.py": b""}


def build(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    (folder / PLACE).mkdir(parents=True)
    (folder / "main.py").write_text("import a")
    for name, content in files.items():
        path = folder / PLACE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_the_same_files_are_the_same_packages_whatever_is_beside_them(tmp_path: Path) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    (other / "main.py").write_text("something else")
    os.utime(other / PLACE / "c.py", (1, 1))
    assert digest_packages(one) == digest_packages(other) != ""


CHANGES: dict[str, Callable[[Path], object]] = {
    "bytes": lambda place: (place / "c.py").write_bytes(b"#"),
    "a byte more in the next file's name": lambda place: os.rename(place / "c.py", place / "cc.py"),
    "a file more": lambda place: (place / "d.py").touch(),
    "a folder more": lambda place: (place / "d").mkdir(),
    "a file fewer": lambda place: (place / "c.py").unlink(),
    "a program": lambda place: (place / "c.py").chmod(0o755),
    "a link": lambda place: (place / "l").symlink_to("c.py"),
    "another place": lambda place: os.rename(place / "a" / "b.so", place / "b.so"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_differs_makes_other_packages(tmp_path: Path, change: str) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    CHANGES[change](other / PLACE)
    assert digest_packages(one) != digest_packages(other)


def test_a_link_to_the_same_bytes_is_not_the_file(tmp_path: Path) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    (other / PLACE / "c.py").unlink()
    (other / PLACE / "c.py").symlink_to("/dev/null")
    assert digest_packages(one) != digest_packages(other)


def test_where_nothing_is_installed_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "code" / ".stoker").mkdir(parents=True)
    assert digest_packages(tmp_path / "real") == digest_packages(tmp_path / "code") == ""
    (tmp_path / "code" / PLACE).symlink_to(tmp_path / "real")
    assert digest_packages(tmp_path / "code") == "", "no link is followed"


def test_a_copy_shows_the_packages_and_nothing_else(tmp_path: Path) -> None:
    code = build(tmp_path / "code")
    (code / PLACE / "l").symlink_to("c.py")
    copy_packages(code, tmp_path / "alone")
    assert digest_packages(tmp_path / "alone") == digest_packages(code)
    assert os.listdir(tmp_path / "alone") == [PLACE.parts[0]]
    assert os.listdir(tmp_path / "alone" / PLACE.parts[0]) == [PLACE.parts[1]]
