"""Finding Python: the real binaries of real and made-up machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.runtimes.python import Runtime
from stoker.runtimes.python.interpreters import find_interpreters, find_own

OWN = ".".join(map(str, sys.version_info[:3]))


def install(prefix: Path, minor: str) -> Path:
    """Something that looks like an interpreter and must never be started."""
    binary = prefix / "bin" / f"python{minor}"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho started >&2; exit 9\n")
    binary.chmod(0o755)
    return binary


def test_the_node_s_own_is_found_through_its_virtual_environment() -> None:
    own = find_own()
    assert own.version == OWN
    assert not own.binary.is_symlink()
    assert (own.prefix / "lib" / f"python{OWN.rpartition('.')[0]}" / "os.py").is_file()


def test_those_of_pyenv_and_uv_are_believed_by_their_folders_names(tmp_path: Path) -> None:
    pyenv = install(tmp_path / "pyenv/versions/3.99.1", "3.99")
    uv = install(tmp_path / "uv/cpython-3.98.2-linux-x86_64-gnu", "3.98")
    for other in ("2.7.18", "3.7.16", "3.99-dev", "system"):
        install(tmp_path / "pyenv/versions" / other, other.rpartition(".")[0] or "3")
    environment = {"PYENV_ROOT": str(tmp_path / "pyenv"), "UV_PYTHON_INSTALL_DIR": str(tmp_path / "uv")}
    found = find_interpreters(environment)
    assert [(each.version, each.binary, each.prefix) for each in found[:2]] == [
        ("3.99.1", pyenv, pyenv.parent.parent),
        ("3.98.2", uv, uv.parent.parent),
    ]
    assert not {"2.7.18", "3.7.16"} & {each.version for each in found}


def test_a_home_is_enough_to_find_them(tmp_path: Path) -> None:
    install(tmp_path / ".pyenv/versions/3.99.1", "3.99")
    install(tmp_path / ".local/share/uv/python/cpython-3.98.2-linux-x86_64-gnu", "3.98")
    versions = [each.version for each in find_interpreters({"HOME": str(tmp_path)})]
    assert versions[:2] == ["3.99.1", "3.98.2"]


def test_without_any_environment_the_own_one_is_there_still() -> None:
    assert OWN in [each.version for each in find_interpreters({})]


def test_they_come_newest_first_and_each_version_once() -> None:
    versions = [tuple(map(int, each.version.split("."))) for each in Runtime().interpreters()]
    assert versions == sorted(set(versions), reverse=True)


def test_the_default_is_the_node_s_own() -> None:
    runtime = Runtime()
    assert runtime.default().version == OWN
    assert runtime.default() in runtime.interpreters()


def test_asking_again_looks_nowhere(tmp_path: Path) -> None:
    install(tmp_path / ".pyenv/versions/3.99.1", "3.99")
    runtime = Runtime({"HOME": str(tmp_path)})
    first = runtime.interpreters()
    shutil.rmtree(tmp_path / ".pyenv")
    assert runtime.interpreters() == first


@pytest.mark.parametrize("interpreter", Runtime().interpreters(), ids=lambda each: each.version)
def test_each_is_what_it_is_said_to_be(interpreter: object) -> None:
    said = subprocess.run(
        [interpreter.binary, "-I", "-S", "-c", "import sys; print(*sys.version_info[:3], sep='.')"],  # type: ignore[attr-defined]
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert said.stdout.strip() == interpreter.version  # type: ignore[attr-defined]


def test_a_prefix_outside_usr_is_shown_at_a_path_of_ours(tmp_path: Path) -> None:
    install(tmp_path / ".pyenv/versions/3.99.1", "3.99")
    runtime = Runtime({"HOME": str(tmp_path)})
    launch = runtime.launch(runtime.interpreters()[0])
    assert launch.name == "python-3.99.1"
    assert launch.argv[0] == "/opt/stoker/python-3.99.1/bin/python3.99"
    assert launch.environment["PATH"].startswith("/opt/stoker/python-3.99.1/bin:")
    assert "LD_LIBRARY_PATH" not in launch.environment
    assert (str(tmp_path / ".pyenv/versions/3.99.1"), "/opt/stoker/python-3.99.1") in [
        (show.source, show.target) for show in launch.shows
    ]
    assert str(tmp_path) not in str((launch.argv, launch.environment))


def test_a_shared_build_finds_its_library(tmp_path: Path) -> None:
    prefix = tmp_path / ".pyenv/versions/3.99.1"
    install(prefix, "3.99")
    (prefix / "lib").mkdir()
    (prefix / "lib" / "libpython3.99.so.1.0").touch()
    runtime = Runtime({"HOME": str(tmp_path)})
    launch = runtime.launch(runtime.interpreters()[0])
    assert launch.environment["LD_LIBRARY_PATH"] == "/opt/stoker/python-3.99.1/lib"


def test_the_server_is_shown_and_can_be_forked() -> None:
    runtime = Runtime()
    launch = runtime.launch(runtime.default())
    sources = {show.target: show.source for show in launch.shows}
    assert launch.fork == launch.argv[-1] == "/opt/stoker/runtime/python/server.py"
    assert os.path.isfile(sources["/opt/stoker/runtime/python"] + "/server.py")


@pytest.mark.parametrize(
    ("handler", "file"),
    [("main.lambda_handler", "main.py"), ("a.b.handle", "a/b.py"), ("a/b.handle", "a/b.py")],
)
def test_a_handler_tells_its_file(handler: str, file: str) -> None:
    assert Runtime().entry_file(handler) == file
