"""Removal of whatever strangers' code can leave behind."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.code.trash import Trash
from stoker.linux.removal import remove


@pytest.fixture
async def trash(tmp_path: Path) -> Trash:
    trash = Trash(tmp_path / "trash")
    trash.open()
    return trash


async def gone(trash: Trash, tmp_path: Path) -> bool:
    await trash.wait_empty()
    return list((tmp_path / "trash").iterdir()) == []


async def test_what_is_taken_is_out_of_sight_at_once(trash, tmp_path):
    (tmp_path / "x/a/b").mkdir(parents=True)
    (tmp_path / "x/a/b/c").write_text("")
    trash.take(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert await gone(trash, tmp_path)


async def test_what_is_not_there_is_no_matter(trash, tmp_path):
    trash.take(tmp_path / "nothing")
    assert await gone(trash, tmp_path)


async def test_links_are_removed_and_not_followed(trash, tmp_path):
    (tmp_path / "victim").mkdir(mode=0o700)
    (tmp_path / "victim/kept").write_text("")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/link").symlink_to(tmp_path / "victim")
    (tmp_path / "x/gone").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "x/pipe")
    trash.take(tmp_path / "x")
    trash.take(tmp_path / "x")
    assert await gone(trash, tmp_path)
    assert (tmp_path / "victim/kept").exists()
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o700


async def test_a_link_itself_is_removed_and_not_followed(trash, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    trash.take(tmp_path / "link")
    assert await gone(trash, tmp_path)
    assert (tmp_path / "victim").is_dir()


async def test_a_chain_of_folders_deeper_than_any_path_is_removed(trash, tmp_path):
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d" * 20, dir_fd=here)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    trash.take(top)
    assert await gone(trash, tmp_path)


async def test_many_files_are_removed_while_the_loop_goes_on(trash, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20_000):
        os.mknod(folder / str(number))
    trash.take(folder)
    turns = 0
    while trash._removals:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert await gone(trash, tmp_path)


async def test_the_leftovers_of_an_earlier_life_go_at_the_start(tmp_path):
    (tmp_path / "trash/half/removed").mkdir(parents=True)
    (tmp_path / "trash/file").write_text("")
    trash = Trash(tmp_path / "trash")
    trash.open()
    assert await gone(trash, tmp_path)


CLOSED = """
import os, sys
from pathlib import Path
from stoker.linux.removal import remove
os.setresgid(64321, 64321, 64321); os.setresuid(64321, 64321, 64321)
trash = Path(sys.argv[1])
(trash / "x/a/b").mkdir(parents=True)
(trash / "x/a/b/file").write_text("")
for name in ("x/a/b", "x/a", "x"):
    (trash / name).chmod(0)
remove(trash, "x")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="nothing is closed to root; this test becomes somebody else")
def test_folders_that_are_closed_to_everybody_are_removed(folder):
    folder.chmod(0o777)
    path = {"PYTHONPATH": ":".join(entry for entry in sys.path if entry)}
    subprocess.run([sys.executable, "-c", CLOSED, folder], env=path, check=True)
    assert list(folder.iterdir()) == []


def test_a_single_file_is_removed(tmp_path):
    (tmp_path / "x").write_text("")
    remove(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []
