"""How Node.js is started inside a sandbox, and how it sees the world there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from stoker.runtimes import contract
from stoker.runtimes.contract import Interpreter
from stoker.runtimes.nodejs.interpreters import find_interpreters
from stoker.sandboxes.contract import Launch, Problem, Show

SERVER_PATH = "/opt/stoker/runtime/nodejs"
_INSIDE = Path(__file__).parent / "inside"


class Runtime(contract.Runtime):
    """Node.js."""

    name: ClassVar[str] = "nodejs"
    spellings: ClassVar[tuple[str, ...]] = ("nodejs", "node")
    default_handler: ClassVar[str] = "index.handle"

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def __repr__(self) -> str:
        return "<nodejs runtime>"

    def problems(self) -> list[Problem]:
        if self._interpreters:
            return []
        return [
            Problem("no Node.js 16 or newer was found", "install the package nodejs, or put node on PATH")
        ]

    def interpreters(self) -> list[Interpreter]:
        return list(self._interpreters)

    @cached_property
    def _interpreters(self) -> tuple[Interpreter, ...]:
        return tuple(find_interpreters(self._environment))

    def launch(self, interpreter: Interpreter) -> Launch:
        shows = [Show(str(_INSIDE), SERVER_PATH)]
        prefix = interpreter.prefix
        if not prefix.is_relative_to("/usr"):
            shows.append(Show(str(prefix), f"/opt/stoker/nodejs-{interpreter.version}"))
            prefix = Path(shows[-1].target)
        binary = prefix / interpreter.binary.relative_to(interpreter.prefix)
        return Launch(
            name=f"nodejs-{interpreter.version}",
            argv=(str(binary), f"{SERVER_PATH}/server.js"),
            environment={
                "PATH": f"{binary.parent}:/usr/local/bin:/usr/bin:/bin",
                "HOME": "/tmp",
                "TMPDIR": "/tmp",
                "LANG": "C.UTF-8",
            },
            shows=tuple(shows),
        )

    def entry_file(self, handler: str) -> str:
        return handler.rpartition(".")[0] + ".js"
