"""The wrappers: each does what it says or raises with its name."""

from __future__ import annotations

import ast
import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from stoker.linux import syscalls
from stoker.linux.processes import kill, reap
from stoker.linux.syscalls import clone3, mount, open_tree, pidfd_open, setns, umount


def test_a_child_by_clone3_is_told_by_its_descriptor() -> None:
    pid, pidfd = clone3(0, signal.SIGCHLD)
    if pid == 0:
        signal.pause()
        os._exit(0)
    assert reap(pid) is None
    kill(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    kill(pidfd)
    assert not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_a_child_by_clone3_forks_with_all_of_pythons_hooks() -> None:
    reading, writing = os.pipe()
    pid, pidfd = clone3(0, signal.SIGCHLD)
    if pid == 0:
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        import threading  # takes the import lock, which a child must find free

        thread = threading.Thread(target=lambda: os.write(writing, b"True"))
        thread.start()
        thread.join()
        os._exit(0)
    assert os.read(reading, 10) == b"True"
    os.waitpid(pid, 0)
    for descriptor in (reading, writing, pidfd):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("call", "name", "number"),
    [
        (lambda: mount("none", "/no/such/folder", "tmpfs", 0), "mount of /no/such/folder", errno.ENOENT),
        (lambda: umount("/no/such/folder"), "umount of /no/such/folder", errno.ENOENT),
        (lambda: open_tree("/no/such/folder"), "open_tree of /no/such/folder", errno.ENOENT),
        (lambda: setns(-1, 0), "setns", errno.EBADF),
        (lambda: pidfd_open(2**30), "pidfd_open", errno.EINVAL),
        (lambda: clone3(2**40, 0), "clone3", errno.EINVAL),
    ],
)
def test_a_failure_names_the_call_and_what_it_was_about(call: object, name: str, number: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with pytest.raises(OSError, match=name) as caught:
        call()  # type: ignore[operator]
    assert caught.value.errno in (number, errno.ESRCH)


SHARED = [
    "linux/syscalls.py",
    "sandboxes/lean/packets.py",
    "sandboxes/lean/inside/walls.py",
    "sandboxes/lean/inside/zygote.py",
]


@pytest.mark.parametrize("name", SHARED)
def test_what_a_zygote_imports_is_for_any_python_from_3_8_on(name: str) -> None:
    source = Path(syscalls.__file__).parent.parent / name
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    ours = {f"stoker/{path}".removesuffix(".py").replace("/", ".") for path in SHARED}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert module in ours or module.split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] in sys.stdlib_module_names for alias in node.names)
