"""Which interpreter a function gets, for every way of asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import BadCode
from stoker.runtimes import contract
from stoker.runtimes.choosing import choose
from stoker.runtimes.contract import Interpreter, Runtime
from stoker.sandboxes.contract import Launch, Problem


class Language(contract.Runtime):
    """A language with these versions, newest first; the default is the second, where there is one."""

    default_handler = "main.f"

    def __init__(self, spellings: tuple[str, ...], *versions: str) -> None:
        self.spellings = spellings  # type: ignore[misc]
        self.name = spellings[0]  # type: ignore[misc]
        self._found = [Interpreter(version=each, binary=Path("/x"), prefix=Path("/")) for each in versions]

    def problems(self) -> list[Problem]:
        return [] if self._found else [Problem(f"no {self.name} was found", "install it")]

    def interpreters(self) -> list[Interpreter]:
        return self._found

    def default(self) -> Interpreter:
        return self._found[:2][-1]

    def launch(self, interpreter: Interpreter) -> Launch:
        raise NotImplementedError

    def entry_file(self, handler: str) -> str:
        raise NotImplementedError


RUNTIMES: list[Runtime] = [
    Language(("python", "py"), "3.13.0", "3.11.7", "3.11.2", "3.9.18", "3.8.18"),
    Language(("nodejs", "node"), "20.20.2"),
    Language(("java",)),
]


@pytest.mark.parametrize(
    ("wanted", "name", "version"),
    [
        ("python", "python", "3.11.7"),
        ("python3", "python", "3.11.7"),
        ("python3.11", "python", "3.11.7"),
        ("python3.11.2", "python", "3.11.2"),
        ("python3.13", "python", "3.13.0"),
        ("Python-3.9", "python", "3.9.18"),
        ("py3.8", "python", "3.8.18"),
        (" python 3.11 ", "python", "3.11.7"),
        ("node", "nodejs", "20.20.2"),
        ("nodejs20", "nodejs", "20.20.2"),
        ("nodejs20.x", "nodejs", "20.20.2"),
        ("NodeJS_20.20", "nodejs", "20.20.2"),
    ],
)
def test_what_is_installed_is_taken_without_a_note(wanted: str, name: str, version: str) -> None:
    choice = choose(RUNTIMES, wanted)
    assert (choice.runtime.name, choice.interpreter.version, choice.note) == (name, version, "")


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        ("python3.7", "3.8.18"),
        ("python3.10", "3.11.7"),
        ("python3.12", "3.13.0"),
        ("python3.11.5", "3.11.7"),
        ("python2.7", "3.8.18"),
        ("python4", "3.13.0"),
        ("nodejs12", "20.20.2"),
        ("node99.9.9", "20.20.2"),
    ],
)
def test_what_is_not_is_mapped_to_the_nearest_and_said(wanted: str, version: str) -> None:
    choice = choose(RUNTIMES, wanted)
    assert choice.interpreter.version == version
    assert choice.note == f"{wanted} is not installed; running on {choice.runtime.name} {version}"


@pytest.mark.parametrize(
    "wanted", ["cobol", "python3.11.7.1", "", "3.11", "python3.11; rm", "python" + "9" * 5000]
)
def test_an_unknown_language_is_refused_with_those_there_are(wanted: str) -> None:
    with pytest.raises(BadCode) as refused:
        choose(RUNTIMES, wanted)
    assert "python (3.13.0, 3.11.7, 3.11.2, 3.9.18, 3.8.18)" in refused.value.message
    assert "java (not installed)" in refused.value.message
    assert len(refused.value.message) < 500


def test_a_language_without_an_interpreter_is_refused_with_the_remedy() -> None:
    with pytest.raises(BadCode, match="no java was found; install it"):
        choose(RUNTIMES, "java8")
