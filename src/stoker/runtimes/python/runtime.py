"""How Python is started inside a sandbox, and how it sees the world there.

A function sees the standard library, its own folder and the dependencies built for it in
`.stoker/deps` below that; never what happens to be installed beside the interpreter (`-I -S`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from stoker.runtimes import contract
from stoker.runtimes.contract import Interpreter
from stoker.runtimes.python.interpreters import find_interpreters, find_own
from stoker.sandboxes.contract import Launch, Problem, Show

SERVER_PATH = "/opt/stoker/runtime/python"
FLAGS = ("-I", "-S", "-B")
_INSIDE = Path(__file__).parent / "inside"


class Runtime(contract.Runtime):
    """Python."""

    name: ClassVar[str] = "python"
    spellings: ClassVar[tuple[str, ...]] = ("python", "py")
    default_handler: ClassVar[str] = "main.lambda_handler"

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def __repr__(self) -> str:
        return "<python runtime>"

    def problems(self) -> list[Problem]:
        return []

    def interpreters(self) -> list[Interpreter]:
        return list(self._interpreters)

    @cached_property
    def _interpreters(self) -> tuple[Interpreter, ...]:
        return tuple(find_interpreters(self._environment))

    def default(self) -> Interpreter:
        """The node's own interpreter: the one that is certain to work here."""
        return find_own()

    def launch(self, interpreter: Interpreter) -> Launch:
        shows = [Show(str(_INSIDE), SERVER_PATH)]
        prefix = interpreter.prefix
        if not prefix.is_relative_to("/usr"):
            shows.append(Show(str(prefix), f"/opt/stoker/python-{interpreter.version}"))
            prefix = Path(shows[-1].target)
        binary = prefix / interpreter.binary.relative_to(interpreter.prefix)
        server = f"{SERVER_PATH}/server.py"
        return Launch(
            name=f"python-{interpreter.version}",
            argv=(str(binary), *FLAGS, server),
            environment=_environment(interpreter, prefix, binary),
            shows=tuple(shows),
            fork=server,
        )

    def entry_file(self, handler: str) -> str:
        module = handler.replace("/", ".").rpartition(".")[0]
        return module.replace(".", "/") + ".py"


def _environment(interpreter: Interpreter, prefix: Path, binary: Path) -> dict[str, str]:
    environment = {
        "PATH": f"{binary.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if prefix != interpreter.prefix and any((interpreter.prefix / "lib").glob("libpython3*.so*")):
        environment["LD_LIBRARY_PATH"] = str(prefix / "lib")
    return environment
