"""Network namespaces with nothing in them but their own loopback.

Making one costs about as much as everything else of a sandbox together, and removing one waits for
grace periods of the kernel. So they are used again: a namespace whose loopback has carried nothing
holds nothing of who was in it (its processes, and with them its sockets, have ended; without
capabilities they could not change it). One that has carried something is dropped: a connection in
TIME_WAIT or a counter would outlive its owner.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from stoker.linux.syscalls import CLONE_NEWNET, setns, unshare

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
OWN = "/proc/self/ns/net"


class Networks:
    """Empty network namespaces, each in the hands of one sandbox or waiting for the next.

    HOLDS: one thread. The calling process is in another namespace for the length of a call, if it can
    come back; a namespace that is not its own it could not enter again.
    """

    def __init__(self, can_come_back: bool = True) -> None:
        self._home = os.open(OWN, os.O_RDONLY)
        self._can_come_back = can_come_back
        self._free: list[int] = []
        self._counters: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Networks {len(self._free)} free>"

    @property
    def host(self) -> int:
        """A descriptor of the namespace this process was started in."""
        return self._home

    def take(self) -> int:
        """A descriptor of a namespace that nobody else is in."""
        return self._free.pop() if self._free else self._make()

    def give_back(self, namespace: int) -> None:
        """HOLDS: every process that was in it has been waited for."""
        if self._is_untouched(namespace):
            self._free.append(namespace)
        else:
            self.drop(namespace)

    def close(self) -> None:
        while self._free:
            self.drop(self._free.pop())

    def counters_of(self, namespace: int) -> int:
        """A descriptor of the table of its interfaces' counters; ours."""
        return self._counters[namespace]

    def drop(self, namespace: int) -> None:
        os.close(self._counters.pop(namespace))
        os.close(namespace)

    def _make(self) -> int:
        namespace, counters = self._make_here() if self._can_come_back else _make_in_child()
        self._counters[namespace] = counters
        return namespace

    def _make_here(self) -> tuple[int, int]:
        try:
            return _enter_new()
        finally:
            setns(self._home, CLONE_NEWNET)

    def _is_untouched(self, namespace: int) -> bool:
        counted = _read_counters(self._counters[namespace])
        return counted.keys() == {b"lo"} and not any(counted[b"lo"])


def read_traffic(counters: int) -> tuple[int, int]:
    """Bytes in and out of every interface but the loopback, of a namespace by the table of its counters."""
    rows = [row for name, row in _read_counters(counters).items() if name != b"lo"]
    return sum(row[0] for row in rows), sum(row[8] for row in rows)


def _read_counters(descriptor: int) -> dict[bytes, list[int]]:
    """Each interface's, sixteen numbers: received first, then sent."""
    rows = (line.partition(b":") for line in os.pread(descriptor, 4096, 0).splitlines()[2:])
    return {name.strip(): list(map(int, numbers.split())) for name, _, numbers in rows}


def _enter_new() -> tuple[int, int]:
    """Be in a new namespace; its descriptor, and one that tells of its interfaces to whoever reads it."""
    unshare(CLONE_NEWNET)
    _raise_loopback()
    namespace = os.open(OWN, os.O_RDONLY)
    try:
        return namespace, os.open("/proc/self/net/dev", os.O_RDONLY)
    except OSError:
        os.close(namespace)
        raise


def _make_in_child() -> tuple[int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        pid = os.fork()
        if pid == 0:
            try:
                socket.send_fds(theirs, [b"made"], _enter_new())
            except OSError as error:
                theirs.send(str(error).encode())
            finally:
                os._exit(0)
        theirs.close()
        said, descriptors, _, _ = socket.recv_fds(ours, 1000, 2)
        os.waitpid(pid, 0)
    if len(descriptors) != 2:
        raise OSError(errno.EPERM, f"no network namespace: {said.decode(errors='replace')}")
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # `recv_fds` leaves them open to be inherited
    return descriptors[0], descriptors[1]


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(control, SIOCGIFFLAGS, request)
        struct.pack_into("h", request, 16, struct.unpack_from("h", request, 16)[0] | IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, request)
