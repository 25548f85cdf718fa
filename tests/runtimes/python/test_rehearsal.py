"""A server that waits goes through a first call with a stand-in; the function must never find out."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stoker.runtimes.python import runtime

INSIDE = Path(runtime.__file__).parent / "inside"
PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from stoker_server import rehearsal, serving
sys.path.pop(0)

def state():
    return [sys.path, sys.argv, os.getcwd(), dict(os.environ), sorted(sys.path_importer_cache)]

server = serving.Server(None)
reading, writing = os.pipe()
os.write(writing, sys.argv[2].encode())
before, known = json.dumps(state()), set(sys.modules)
rehearsal.rehearse_unless_asked(reading, server.load_and_serve)
print(json.dumps([before == json.dumps(state()), sorted(set(sys.modules) - known)]))
"""

# A zygote's: a child goes through a whole conversation, and says which pages it has for itself in the end.
LIVES = """
import ctypes, gc, json, os, sys
os.dup2(os.open("/dev/null", os.O_RDWR), 4)
sys.path.insert(0, sys.argv[1])
from stoker_server import rehearsal, serving, streams
sys.path.pop(0)

def state():
    outside = [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)]
    return [sys.path, sys.argv, os.getcwd(), dict(os.environ), sorted(sys.path_importer_cache), outside]

def write_pages():
    gc.freeze()
    reading, writing = os.pipe()
    if os.fork() == 0:
        rehearsal.rehearse(server.converse)
        with open("/proc/self/smaps_rollup") as file:
            dirty = next(line for line in file if line.startswith("Private_Dirty"))
        os.write(writing, dirty.split()[1].encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 100))

before = json.dumps(state())
streams.install_ahead()
server = serving.Server(None)
unprepared = write_pages()
known = set(sys.modules)
rehearsal.rehearse_lives(server.converse)
same = before == json.dumps(state()) and known == set(sys.modules)
print(json.dumps([same, sys.stdout.seekable(), unprepared, write_pages()]))
"""


def run(program: str, *arguments: str) -> list[Any]:
    """What the program, told where the server is, says in JSON."""
    command = [sys.executable, "-I", "-S", "-B", "-c", program, str(INSIDE), *arguments]
    with tempfile.TemporaryFile() as said:
        subprocess.run(command, check=True, stdout=said)
        said.seek(0)
        answer: list[Any] = json.loads(said.read())
        return answer


def rehearse(said: str) -> tuple[bool, list[str]]:
    """Whether all is as before, and the modules that are new."""
    same, modules = run(PROGRAM, said)
    return same, modules


def test_a_server_that_waits_rehearses_and_leaves_no_trace() -> None:
    assert rehearse("") == (True, [])


def test_a_server_that_is_asked_for_does_not_rehearse() -> None:
    assert rehearse("a LOAD that is here already") == (True, [])


def test_a_zygote_that_went_through_its_childrens_lives_is_as_before() -> None:
    same, _, _, _ = run(LIVES)
    assert same


def test_streams_made_before_a_fork_take_what_is_there_for_pipes() -> None:
    _, seekable, _, _ = run(LIVES)
    assert not seekable  # the program's own output is a file


def test_children_of_a_zygote_that_went_through_their_lives_write_to_fewer_pages() -> None:
    _, _, unprepared, prepared = run(LIVES)
    assert prepared < unprepared
