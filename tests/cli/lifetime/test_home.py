from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from stoker.cli.lifetime import home as homes
from stoker.errors import SettingsError
from stoker.settings import Settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a home away")


def test_a_home_is_made_with_all_above_it(folder: Path) -> None:
    settings = Settings(home=folder / "a" / "b")
    lock = homes.claim(settings, 9000)
    said = msgspec.json.decode((settings.home / "node.lock").read_bytes())
    assert (said["pid"], said["port"], said["sandbox"]) == (os.getpid(), 9000, "lean")
    lock.release()


@as_root
def test_a_home_belongs_to_whom_the_node_becomes(folder: Path) -> None:
    homes.claim(Settings(home=folder / "home", node_uid=54_321), 1).release()
    assert (folder / "home").stat().st_uid == 54_321


@as_root
def test_a_home_of_somebody_else_is_left_alone(folder: Path) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1234, 1234)
    with pytest.raises(SettingsError, match=f"home {theirs} belongs to user 1234, but the node becomes"):
        homes.claim(Settings(home=theirs), 1)
    assert theirs.stat().st_uid == 1234


@as_root
def test_a_user_that_is_not_known_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="user 'nobody-of-that-name' is not known here"):
        homes.claim(Settings(home=folder, user="nobody-of-that-name"), 1)


def test_a_folder_with_other_things_in_it_is_no_home(folder: Path) -> None:
    (folder / "precious").touch()
    owner = folder.stat().st_uid
    with pytest.raises(SettingsError, match=r"is not empty and no home of a node \(it has 'precious'\)"):
        homes.claim(Settings(home=folder), 1)
    assert folder.stat().st_uid == owner
    assert sorted(os.listdir(folder)) == ["precious"]


def test_a_home_is_a_home_again(folder: Path) -> None:
    (folder / "stoker.toml").touch()
    homes.claim(Settings(home=folder), 1).release()
    (folder / "records.sqlite").touch()
    homes.claim(Settings(home=folder), 1).release()


def test_a_file_in_place_of_a_home_is_refused(folder: Path) -> None:
    (folder / "home").touch()
    with pytest.raises(SettingsError, match="cannot be used: File exists"):
        homes.claim(Settings(home=folder / "home"), 1)


def test_nobody_is_found_in_a_home_without_a_node(folder: Path) -> None:
    assert homes.find(folder) is None
    homes.claim(Settings(home=folder), 1).release()
    assert homes.find(folder) is None
