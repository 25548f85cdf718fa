"""A world of its own for a node: a network namespace to run in, and another one with everything else.

The node's namespace has nothing but a loopback, an uplink and an address of a private network beside it;
what is behind the uplink is the test's: sockets that were opened in the other namespace stay in it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from stoker.linux.syscalls import CLONE_NEWNET, setns, unshare

NODE, INTERNET, NAMES = "203.0.113.2", "203.0.113.10", "203.0.113.53"
PRIVATE, OTHER_PRIVATE, METADATA = "10.77.0.10", "192.168.77.10", "169.254.169.254"
BESIDE = "10.88.0.1"  # another address of the node's own machine
PUBLIC = (INTERNET, "198.51.100.7", "192.0.2.7")
INNER = (PRIVATE, OTHER_PRIVATE, "100.64.7.7", "172.16.7.7", "198.19.255.7")
THERE = (*PUBLIC, *INNER, NAMES, METADATA)
OWN = "/proc/self/ns/net"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")  # of the namespace that one is in


class World:
    """The two namespaces; whoever has entered is in the node's."""

    def __init__(self) -> None:
        self._home = os.open(OWN, os.O_RDONLY)
        unshare(CLONE_NEWNET)
        self._there = os.open(OWN, os.O_RDONLY)
        unshare(CLONE_NEWNET)
        self._node = os.open(OWN, os.O_RDONLY)

    def build(self) -> None:
        FORWARDING.write_text("0\n")  # a new namespace begins with what the machine's own has just now
        ip("link set lo up")
        ip("link add up0 type veth peer name down0", "link add side0 type veth peer name side1")
        ip(f"link set down0 netns /proc/{os.getpid()}/fd/{self._there}")
        ip(f"addr add {NODE}/24 dev up0", "link set up0 up", f"addr add {BESIDE}/24 dev side0")
        ip("link set side0 up", "link set side1 up", "route add default via 203.0.113.1")
        with self.elsewhere():
            ip("link set lo up", "addr add 203.0.113.1/24 dev down0", "link set down0 up")
            ip(*(f"addr add {address}/32 dev lo" for address in THERE))

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Be on the other side."""
        setns(self._there, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self._node, CLONE_NEWNET)

    def leave(self) -> None:
        setns(self._home, CLONE_NEWNET)
        for descriptor in (self._home, self._there, self._node):
            os.close(descriptor)

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening socket on the other side."""
        with self.elsewhere():
            return socket.create_server((address, port), backlog=4096)

    def datagrams(self, address: str, port: int) -> socket.socket:
        with self.elsewhere():
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            bound.bind((address, port))
            return bound


def ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


class Greeter:
    """Says where it is to whoever connects, and keeps whom it has met."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.met: list[str] = []
        self.received = bytearray()
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening, self._accept)

    def _accept(self) -> None:
        stream, sender = self._listening.accept()
        self.met.append(sender[0])
        with stream:
            stream.sendall(self._listening.getsockname()[0].encode())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()


class Zone:
    """A name server for every name there is: what it knows is `records`, by name and kind."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self.records: dict[tuple[str, str], list[str]] = {}
        self.asked: list[str] = []
        self.ttl = 60
        bound.setblocking(False)
        asyncio.get_running_loop().add_reader(bound, self._answer)

    def say(self, name: str, *addresses: str, kind: str = "A") -> None:
        self.records[name, kind] = list(addresses)

    def _answer(self) -> None:
        wire, sender = self._bound.recvfrom(4096)
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name
        self.asked.append(f"{name} {kind}")
        reply = dns.message.make_response(query)
        at = question.name
        if alias := self.records.get((name, "CNAME")):
            reply.answer.append(dns.rrset.from_text(at, self.ttl, "IN", "CNAME", alias[0] + "."))
            name, at = alias[0], dns.rrset.from_text(alias[0] + ".", 1, "IN", "A", "1.1.1.1").name
        if found := self.records.get((name, kind)):
            reply.answer.append(dns.rrset.from_text(at, self.ttl, "IN", kind, *found))
        elif not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self._bound.sendto(reply.to_wire(max_size=65000), sender)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._bound)
        self._bound.close()
