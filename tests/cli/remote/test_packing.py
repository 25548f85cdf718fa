from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from stoker.cli.exits import USAGE, Failure
from stoker.cli.remote.packing import pack, zip_folder


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("def lambda_handler(event, context): ...")
    (folder / "lib" / "words.txt").write_text("words")
    return folder


def names(code: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(code)).namelist()


def refusal(path: Path) -> str:
    with pytest.raises(Failure) as caught:
        pack(path)
    assert caught.value.code == USAGE
    return str(caught.value)


def test_a_folder_becomes_a_zip_named_after_it(hello: Path) -> None:
    package = pack(hello)
    assert (package.name, package.runtime) == ("hello", "python")
    assert names(package.code) == ["lib/words.txt", "main.py"]


def test_the_same_folder_makes_the_same_bytes(hello: Path) -> None:
    before = pack(hello).code
    (hello / "main.py").touch()
    assert pack(hello).code == before


def test_caches_and_version_control_stay_behind(hello: Path) -> None:
    for name in (".git", "__pycache__", "lib/__pycache__"):
        (hello / name).mkdir()
        (hello / name / "file").touch()
    assert names(zip_folder(hello)) == ["lib/words.txt", "main.py"]


def test_a_program_stays_one(hello: Path) -> None:
    (hello / "run").touch(mode=0o755)
    archive = zipfile.ZipFile(io.BytesIO(zip_folder(hello)))
    modes = {member.filename: member.external_attr >> 16 & 0o777 for member in archive.infolist()}
    assert modes == {"run": 0o755, "main.py": 0o644, "lib/words.txt": 0o644}


def test_a_link_to_a_file_becomes_the_file_and_one_to_a_folder_is_refused(hello: Path) -> None:
    (hello / "copy.py").symlink_to("main.py")
    archive = zipfile.ZipFile(io.BytesIO(pack(hello).code))
    assert archive.read("copy.py") == archive.read("main.py")
    (hello / "up").symlink_to("..")
    assert refusal(hello) == f"{hello}/up is a link to a folder; put the folder itself there"


def test_the_config_says_the_language(hello: Path) -> None:
    (hello / "config.json").write_text(json.dumps({"environment": "python3.7"}))
    assert pack(hello).runtime == "python3.7"


def test_a_config_that_is_none_is_refused(hello: Path) -> None:
    (hello / "config.json").write_text("[]")
    assert refusal(hello) == "its config.json is no JSON object"


@pytest.mark.parametrize(("file", "runtime"), [("hi.py", "python"), ("hi.js", "nodejs"), ("hi.rb", None)])
def test_a_single_file_is_sent_as_it_is(tmp_path: Path, file: str, runtime: str | None) -> None:
    (tmp_path / file).write_bytes(b"code")
    package = pack(tmp_path / file)
    assert (package.name, package.runtime, package.code) == ("hi", runtime, b"code")


@pytest.mark.parametrize("top", ["", "hello/"])
def test_a_zip_is_looked_into_for_its_language(tmp_path: Path, top: str) -> None:
    path = tmp_path / "thing.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{top}config.json", '{"environment": "nodejs12"}')
        archive.writestr(f"{top}index.js", "")
    package = pack(path)
    assert (package.name, package.runtime, package.code) == ("thing", "nodejs12", path.read_bytes())


def test_a_broken_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thing.zip").write_bytes(b"not a zip")
    assert refusal(tmp_path / "thing.zip") == f"{tmp_path}/thing.zip is no zip: File is not a zip file"


def test_a_tarball_keeps_its_whole_suffix_out_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "thing.tar.gz").write_bytes(b"x")
    assert pack(tmp_path / "thing.tar.gz").name == "thing"


def test_what_would_be_read_for_ever_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "main.py")
    assert refusal(folder) == f"{folder}/main.py is neither a file nor a folder"
    assert refusal(folder / "main.py") == f"{folder}/main.py is neither a file nor a folder"
    assert refusal(Path("/dev/zero")) == "/dev/zero is neither a file nor a folder"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "nothing.py") == f"{tmp_path}/nothing.py cannot be read: No such file or directory"
    )
