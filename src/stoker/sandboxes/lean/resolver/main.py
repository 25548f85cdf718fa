"""The resolver's life: started as root with its sockets, it reads its orders and gives everything up.

Only then is a stranger's byte read. It keeps the host's network, by which it reaches the name servers,
and nothing else of the host: an empty root, a user of its own without capabilities, a filter of system
calls, bounded memory, no new processes.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket

import dns.rdata

from stoker.egress import read_networks
from stoker.linux import syscalls
from stoker.linux.mounts import leave_the_hosts, make_root
from stoker.sandboxes.lean.egress.frames import MAX_PACKET
from stoker.sandboxes.lean.packets import unpack_parts
from stoker.sandboxes.lean.resolver.asking import Upstream
from stoker.sandboxes.lean.resolver.serving import Resolver

CONTROL, DATAGRAMS, STREAMS = 3, 4, 5
BOUNDS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_DATA: 256 * 1024 * 1024,
    resource.RLIMIT_NOFILE: 4096,
    resource.RLIMIT_FSIZE: 0,
}
SITE = "/proc"


def main() -> None:
    control = socket.socket(fileno=CONTROL)
    sockets = socket.socket(fileno=DATAGRAMS), socket.socket(fileno=STREAMS)
    uid, private, servers, *filters = unpack_parts(control.recv(MAX_PACKET)[1:])
    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]  # later there are no files to load them from
    words = servers.decode().split()
    upstream = Upstream(tuple(zip(words[::2], map(int, words[1::2]), strict=True)))
    give_up(int(uid), filters)
    for one in (control, *sockets):
        one.setblocking(False)
    resolver = Resolver(control, sockets, upstream, read_networks(private.decode()))
    try:
        asyncio.run(resolver.serve())
    except KeyboardInterrupt:
        pass


def give_up(uid: int, filters: list[bytes]) -> None:
    """Become nobody, nowhere."""
    leave_the_hosts()
    syscalls.unshare(syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
    syscalls.mount(
        "tmpfs", SITE, "tmpfs", syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=4k"
    )
    make_root(SITE)
    syscalls.close_range(STREAMS + 1)
    for kind, bound in BOUNDS.items():
        resource.setrlimit(kind, (bound, bound))
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECUREBITS)
    syscalls.drop_bounding_set()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.drop_capabilities()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    # A helper that ended before this line is told by the end of the control socket.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    for program in filters:
        syscalls.Filter(program).load()
