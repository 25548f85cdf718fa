"""What a package's build leaves in its folder: whatever it is, the node is neither fooled nor stalled.

The package's one dependency is a project in it, whose build script does what it likes: with pip a build
backend, with npm an install script.
"""

from __future__ import annotations

import json
import re

import pytest

from hostile.arena import Arena, package
from hostile.conftest import SANDBOXES
from journeys.running import Answer

# Who looks at what a build has left is the node, whatever walls there were: one kind of them will do.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.slow,
    pytest.mark.parametrize("field", SANDBOXES[:1], indirect=True),
]

# Where the function's folder is when its build runs: beside the folder for temporary files.
BACKEND = """
import os, socket, stat, sys, time
root = os.path.realpath(os.environ["TMPDIR"] + "/../tree")
METADATA = "Metadata-Version: 2.1\\nName: dep\\nVersion: 1\\n"
TAGS = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

def get_requires_for_build_wheel(settings=None):
    return []

def build_wheel(directory, settings=None, metadata=None):
    import zipfile
    attack()
    with zipfile.ZipFile(os.path.join(directory, "dep-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("dep.py", "")
        for name, text in (("METADATA", METADATA), ("WHEEL", TAGS), ("RECORD", "")):
            wheel.writestr("dep-1.dist-info/" + name, text)
    return "dep-1-py3-none-any.whl"

def attack():
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "dep"
version = "1"
"""
MAIN = "def lambda_handler(event, context):\n    return []\n"


def built_with(attack: str) -> bytes:
    lines = "".join(f"    {line}\n" for line in attack.strip().splitlines())
    texts = {"main.py": MAIN, "requirements.txt": "./dep\n", "dep/pyproject.toml": PROJECT}
    texts |= {"dep/backend.py": BACKEND + lines, "config.json": "{}"}
    return package({name: (text.encode(), False) for name, text in texts.items()})


HARMLESS = {
    "names that are no text": """
for name in (b"\\xff\\xfe", b"line\\nbreak", b"\\x1b[31mred", b"x" * 255, b"-rf", b" ", b"*"):
    os.mkdir(os.fsencode(root) + b"/" + name)
    open(os.fsencode(root) + b"/" + name + b"/" + name, "w").close()
""",
    "folders and files closed to all": """
os.makedirs(root + "/a/b/c")
for path in ("a/b/c/file", "a/file", "file"):
    open(root + "/" + path, "w").close()
    os.chmod(root + "/" + path, 0)
""",
    "links to anywhere": """
os.symlink("/etc/shadow", root + "/shadow")
os.symlink("/proc/self/environ", root + "/environ")
os.symlink("loop", root + "/loop")
os.symlink("/", root + "/slash")
os.symlink("../" * 40 + "etc", root + "/up")
os.symlink("x" * 4000, root + "/long")
""",
    "hard links by the thousand": """
open(root + "/one", "w").close()
for number in range(5000):
    os.link(root + "/one", root + "/link%d" % number)
""",
    "modes that give more than is there": """
open(root + "/setuid", "w").close()
os.chmod(root + "/setuid", 0o6777)
os.mkdir(root + "/sticky")
os.chmod(root + "/sticky", 0o7777)
""",
    "somebody who stays": """
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 1024)
    time.sleep(1e9)
""",
    "names like those of the node": """
os.makedirs(root + "/manifest.json/code/ready/tree")
os.makedirs(root + "/lost+found")
open(root + "/.trash", "w").close()
""",
}
REFUSED = {
    "a pipe": ("os.mkfifo(root + '/pipe')", "no file, folder or link"),
    "a socket": ("socket.socket(socket.AF_UNIX).bind(root + '/socket')", "no file, folder or link"),
    "a pipe in the place of its configuration": (
        "os.unlink(root + '/config.json'); os.mkfifo(root + '/config.json')",
        "no file, folder or link",
    ),
    "another configuration": (
        "open(root + '/config.json', 'w').write('{\"memory_mb\": 64}')",
        "not its to change",
    ),
    "a link in the place of its configuration": (
        "os.unlink(root + '/config.json'); os.symlink('/etc/passwd', root + '/config.json')",
        "config.json cannot be read",
    ),
    "a link out in the place of its code": (
        "os.unlink(root + '/main.py'); os.symlink('/etc/passwd', root + '/main.py')",
        "has no main.py",
    ),
    "no code, and a name that is no text": (
        "os.unlink(root + '/main.py'); open(os.fsencode(root) + b'/!\\xff\\n', 'w').close()",
        "has no main.py",
    ),
    "a link in the place of its folder": (
        "os.rename(root, root + '.away'); os.symlink(root + '.away', root)",
        "in the place of its folder",
    ),
    "a chain of folders": (
        """
here = os.open(root, os.O_RDONLY)
for _ in range(4096):
    os.mkdir("d" * 100, dir_fd=here)
    inner = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
    os.close(here)
    here = inner
""",
        "File name too long",
    ),
    "files without number": (
        """
for number in range(10_000_000):
    os.mknod(root + "/%d" % number)
""",
        "at most 20000 files|took longer than build_timeout_s",  # whichever it meets first
    ),
    "a sparse file of 100 GB": (
        "open(root + '/sparse', 'wb').truncate(100 << 30)",
        "",
    ),
    "a build that stops itself": ("os.kill(0, 19)", "took longer than build_timeout_s"),
    "a build that ends its own server": ("import signal; os.kill(os.getppid(), signal.SIGKILL)", ""),
    "a device": ("os.mknod(root + '/device', stat.S_IFCHR | 0o666, os.makedev(1, 3))", "not permitted"),
}  # fmt: skip


def deploy(field: Arena, code: bytes, runtime: str = "python") -> Answer:
    return field.node.deploy("built", code, runtime=runtime, timeout="10s", reuse="none")


@pytest.mark.parametrize("what", HARMLESS)
def test_what_a_build_leaves_that_does_no_harm_is_kept_and_can_be_removed(field: Arena, what: str) -> None:
    with field.watched(field.hello, clean_s=10):
        answer = deploy(field, built_with(HARMLESS[what]))
        assert answer.status == 201, answer
        assert field.node.call("built").json == []
        assert field.node.ask("DELETE", "/functions/built").status == 200


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_build_leaves_that_is_no_code_is_refused_with_the_reason(field: Arena, what: str) -> None:
    attack, reason = REFUSED[what]
    with field.watched(field.hello, clean_s=10):
        answer = deploy(field, built_with(attack))
        assert answer.status in (422, 500), answer
        assert answer.json["error"]["type"] in ("bad_code", "build_failed"), answer
        assert re.search(reason, answer.json["error"]["message"]), answer
        assert field.node.call("built").status == 404


INSTALL = """
const fs = require('fs');
const root = process.env.INIT_CWD;
require('child_process').execFileSync('mkfifo', [`${root}/pipe`]);
"""


def test_what_an_install_script_leaves_is_looked_at_too(field: Arena) -> None:
    dependency = {"name": "dep", "version": "1.0.0", "scripts": {"install": "node attack.js"}}
    texts = {
        "index.js": "exports.handle = () => [];",
        "package.json": json.dumps({"name": "f", "version": "1.0.0", "dependencies": {"dep": "file:./dep"}}),
        "dep/package.json": json.dumps(dependency),
        "dep/attack.js": INSTALL,
    }
    with field.watched(field.hello, clean_s=10):
        code = package({name: (text.encode(), False) for name, text in texts.items()})
        answer = deploy(field, code, runtime="nodejs")
        assert "'pipe', no file, folder or link" in answer.json["error"]["message"], answer
