"""Network namespaces that are used again only when nothing has happened in them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: changing the namespace of the tests' process would be felt by all of them.
PROGRAM = """
import os, socket
from stoker.linux.network import Networks
from stoker.linux.syscalls import CLONE_NEWNET, setns

def inode(descriptor):
    return os.fstat(descriptor).st_ino

networks = Networks()
home = os.stat("/proc/self/ns/net").st_ino
one, other = networks.take(), networks.take()
assert len({home, inode(one), inode(other), inode(networks.host)}) == 3
assert os.stat("/proc/self/ns/net").st_ino == home
quiet, used = inode(one), inode(other)
setns(other, CLONE_NEWNET)
with socket.create_server(("127.0.0.1", 0)) as listener:
    socket.create_connection(listener.getsockname()).close()
assert [name for _, name in socket.if_nameindex()] == ["lo"]
setns(networks.host, CLONE_NEWNET)
networks.give_back(other)
networks.give_back(one)
assert repr(networks) == "<Networks 1 free>", networks
assert inode(networks.take()) == quiet
networks.close()
assert os.stat("/proc/self/ns/net").st_ino == home
print("held")
"""


def test_a_namespace_that_carried_something_is_not_used_again() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = os.pathsep.join(place for place in sys.path if place)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    assert run.stdout == b"held\n"


def test_the_tests_own_network_is_untouched() -> None:
    assert Path("/proc/self/ns/net").exists()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
