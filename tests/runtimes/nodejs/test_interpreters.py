"""Finding Node.js: the real binaries of real and made-up machines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stoker.runtimes.nodejs import Runtime
from stoker.runtimes.nodejs.interpreters import find_interpreters


def install(prefix: Path) -> Path:
    """Something that looks like a program and must never be started."""
    binary = prefix / "bin" / "node"
    binary.parent.mkdir(parents=True)
    shutil.copy("/bin/false", binary)
    return binary


def test_those_of_nvm_are_believed_by_their_folders_names(tmp_path: Path) -> None:
    binary = install(tmp_path / ".nvm/versions/node/v99.1.2")
    install(tmp_path / ".nvm/versions/node/v14.21.3")
    install(tmp_path / ".nvm/versions/node/v99.x")
    found = find_interpreters({"HOME": str(tmp_path)})
    assert (found[0].version, found[0].binary) == ("99.1.2", binary)
    assert not [each for each in found if each.version.startswith("14.")]


def test_one_on_the_path_is_believed_by_its_headers(tmp_path: Path) -> None:
    binary = install(tmp_path / "node")
    header = tmp_path / "node/include/node/node_version.h"
    header.parent.mkdir(parents=True)
    parts = {"MAJOR": 98, "MINOR": 7, "PATCH": 6}
    header.write_text("".join(f"#define NODE_{part}_VERSION {number}\n" for part, number in parts.items()))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/node").symlink_to(binary)
    found = find_interpreters({"PATH": f"relative:{tmp_path / 'bin'}"})
    assert (found[0].version, found[0].binary, found[0].prefix) == ("98.7.6", binary, tmp_path / "node")


def test_a_shim_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "bin/node"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexec elsewhere\n")
    shim.chmod(0o755)
    assert not [each for each in find_interpreters({"PATH": str(shim.parent)}) if each.binary == shim]


def test_one_that_cannot_say_its_version_is_passed_over(tmp_path: Path) -> None:
    binary = install(tmp_path)
    assert not [each for each in find_interpreters({"PATH": str(binary.parent)}) if each.binary == binary]


def test_a_prefix_outside_usr_is_shown_at_a_path_of_ours(tmp_path: Path) -> None:
    install(tmp_path / ".nvm/versions/node/v99.1.2")
    runtime = Runtime({"HOME": str(tmp_path)})
    launch = runtime.launch(runtime.interpreters()[0])
    assert launch.name == "nodejs-99.1.2"
    assert launch.argv == ("/opt/stoker/nodejs-99.1.2/bin/node", "/opt/stoker/runtime/nodejs/server.js")
    assert launch.environment["PATH"].startswith("/opt/stoker/nodejs-99.1.2/bin:")
    assert str(tmp_path) not in str((launch.argv, launch.environment))
    assert launch.fork is None


@pytest.mark.parametrize(("handler", "file"), [("index.handle", "index.js"), ("src/app.main", "src/app.js")])
def test_a_handler_tells_its_file(handler: str, file: str) -> None:
    assert Runtime().entry_file(handler) == file
