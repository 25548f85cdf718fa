"""A server that waits goes through a first call with a stand-in; the function must never find out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from stoker.runtimes.python import runtime

INSIDE = Path(runtime.__file__).parent / "inside"
PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from stoker_server import rehearsal, serving
sys.path.pop(0)

def state():
    return [sys.path, sys.argv, os.getcwd(), dict(os.environ), sorted(sys.path_importer_cache)]

reading, writing = os.pipe()
os.write(writing, sys.argv[2].encode())
before, known = json.dumps(state()), set(sys.modules)
rehearsal.rehearse_unless_asked(reading, lambda channel: serving.load_and_serve(channel, None))
print(json.dumps([before == json.dumps(state()), sorted(set(sys.modules) - known)]))
"""


def rehearse(said: str) -> tuple[bool, list[str]]:
    """Whether all is as before, and the modules that are new."""
    program = [sys.executable, "-I", "-S", "-B", "-c", PROGRAM, str(INSIDE), said]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    same, modules = json.loads(done.stdout)
    return same, modules


def test_a_server_that_waits_rehearses_and_leaves_no_trace() -> None:
    assert rehearse("") == (True, ["_sitebuiltins", "_socket"])


def test_a_server_that_is_asked_for_does_not_rehearse() -> None:
    assert rehearse("a LOAD that is here already") == (True, [])
