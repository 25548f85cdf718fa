"""Network namespaces with nothing in them but their own loopback.

Making one costs about as much as everything else of a sandbox together, and removing one waits for
grace periods of the kernel. So they are used again: a namespace whose loopback has carried nothing
holds nothing of who was in it (its processes, and with them its sockets, have ended; without
capabilities they could not change it). One that has carried something is dropped: a connection in
TIME_WAIT or a counter would outlive its owner.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from stoker.linux.syscalls import CLONE_NEWNET, setns, unshare

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
OWN = "/proc/self/ns/net"


class Networks:
    """Empty network namespaces, each in the hands of one sandbox or waiting for the next.

    HOLDS: one thread. The calling process is in another namespace for the length of a call.
    """

    def __init__(self) -> None:
        self._home = os.open(OWN, os.O_RDONLY)
        self._free: list[int] = []

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
            os.close(namespace)

    def close(self) -> None:
        while self._free:
            os.close(self._free.pop())

    def _make(self) -> int:
        unshare(CLONE_NEWNET)
        try:
            _raise_loopback()
            return os.open(OWN, os.O_RDONLY)
        finally:
            setns(self._home, CLONE_NEWNET)

    def _is_untouched(self, namespace: int) -> bool:
        setns(namespace, CLONE_NEWNET)
        try:
            with open("/proc/self/net/dev", "rb", buffering=0) as file:
                loopback = file.read().splitlines()[2].split()
        finally:
            setns(self._home, CLONE_NEWNET)
        return loopback[0] == b"lo:" and not any(map(int, loopback[1:]))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(control, SIOCGIFFLAGS, request)
        struct.pack_into("h", request, 16, struct.unpack_from("h", request, 16)[0] | IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, request)
