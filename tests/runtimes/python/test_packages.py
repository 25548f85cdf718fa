"""What is imported for several functions: nothing that draws, and only for those it fits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.runtimes.python import runtime

INSIDE = Path(runtime.__file__).parent / "inside"
PROGRAM = """
import json, os, random, sys, tempfile
sys.path.insert(0, sys.argv[1])
from stoker_server import packages
from stoker_server.failures import LoadFailed
sys.path.pop(0)
before = [list(sys.path), os.urandom, random._urandom, random.Random.seed]
try:
    packages.import_alone(json.loads(sys.argv[2]))
    said = ""
except LoadFailed as failure:
    said = failure.error[1]
assert before[1:] == [os.urandom, random._urandom, random.Random.seed]
assert said or sys.path == before[0]
print(said)
"""
FITS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from stoker_server import packages
print(packages.fits(*json.loads(sys.argv[2])))
"""


def run(program: str, words: object) -> str:
    command = [sys.executable, "-I", "-S", "-c", program, str(INSIDE), json.dumps(words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def install(code: Path, name: str, text: str) -> dict[str, Any]:
    path = code / ".stoker" / "deps" / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {"code": str(code), "imports": [name], "handler": ""}


@pytest.mark.parametrize(
    "draw",
    [
        "import os; os.urandom(1)",
        "from os import urandom; urandom(1)",
        "import random; random.random()",
        "import random; random.seed()",
        "import random; A = random.Random()",
        "import random; A = random.SystemRandom().random()",
        "import secrets; A = secrets.token_hex()",
        "import uuid; A = uuid.uuid4()",
        "import tempfile; A = tempfile.mktemp()",
    ],
)
def test_what_draws_is_seen(tmp_path: Path, draw: str) -> None:
    said = run(PROGRAM, install(tmp_path, "package", draw))
    assert said.endswith("draws random numbers, which others would know"), said


@pytest.mark.parametrize("text", ["import os, secrets, uuid", "import random; A = random.Random(4).random()"])
def test_what_could_draw_and_does_not_is_imported(tmp_path: Path, text: str) -> None:
    assert run(PROGRAM, install(tmp_path, "package", text)) == ""


def test_numpys_own_generator_may_draw(tmp_path: Path) -> None:
    install(tmp_path, "numpy.__init__", "")
    assert run(PROGRAM, install(tmp_path, "numpy.random", "import secrets; A = secrets.randbits(128)")) == ""


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("import a", True),
        ("import os, a as b", True),
        ("def later():\n    from a.c import d", True),
        ("from .a import b", False),
        ("import ab", False),
        ("# import a", False),
        ("__import__('a')", False),
    ],
)
def test_it_fits_who_names_it(tmp_path: Path, text: str, fits: bool) -> None:
    (tmp_path / "main.py").write_text(text)
    load = {"code": str(tmp_path), "handler": "main.handler"}
    assert run(FITS, [{"imports": ["a"], "modules": ["a", "queue"]}, load]) == str(fits)
    (tmp_path / "queue.py").touch()
    assert run(FITS, [{"imports": ["a"], "modules": ["a", "queue"]}, load]) == "False"
