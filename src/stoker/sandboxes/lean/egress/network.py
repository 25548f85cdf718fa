"""Connects sandboxes: a pair of links for each, the node's table, the resolver that answers their names.

A connection is made in the network namespace that the sandbox has anyway, before its walls stand: for a
spare that is quiet time. It goes with the namespace, which the kernel removes a moment after the last of
its processes; only when its link has gone, and what the kernel knew of its address is forgotten, is the
address somebody else's.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from stoker.egress import MOST_TARGETS, Target, is_reachable, read_networks
from stoker.linux import links
from stoker.linux.nftables import Ruleset
from stoker.linux.syscalls import CLONE_NEWNET, setns
from stoker.sandboxes.lean.egress import rules
from stoker.sandboxes.lean.egress.block import ADDRESSES, FIRST, Block, prefix_of, table_of
from stoker.sandboxes.lean.egress.clerk import Clerk, Watch
from stoker.sandboxes.lean.egress.forgetting import Forgetting
from stoker.sandboxes.lean.egress.forwarding import Forwarding
from stoker.sandboxes.lean.egress.frames import Open

INSIDE = "eth0"
MOST_OPENED = 1024  # for one sandbox: addresses that names have led to, times ports
SPAN_S = (60, 3600)  # how long an address is open, whatever the name's own time to live says
GRACE_S = 30  # longer than the answer may be kept, so that who connects at its end still does
GONE_S = 3.0  # for the kernel to remove the last links, when the helper ends


class Words(NamedTuple):
    """What the node says of its network."""

    private: str
    servers: tuple[tuple[str, int], ...]
    resolver_uid: int
    resolver: tuple[str, ...]
    """How the resolver is started."""
    filters: tuple[bytes, ...]


class Connection:
    """One sandbox's way out."""

    def __init__(self, slot: int, serial: int, name: str, address: IPv4Address) -> None:
        self.slot = slot
        self.serial = serial
        self.name = name
        self.address = address
        self.targets: tuple[Target, ...] = ()
        self.opened: dict[tuple[IPv4Address, int], float] = {}

    def __repr__(self) -> str:
        return f"<Connection {self.name} {self.address}>"


class Egress:
    """Everything that lets sandboxes out; nothing on the host before the first one needs it."""

    def __init__(self, tag: str, block: Block, words: Words, watch: Watch) -> None:
        self._tag = tag
        self._block = block
        self._words = words
        self._watch = watch
        self._private = read_networks(words.private)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._free = deque(range(FIRST, ADDRESSES - 1))
        self._serial = 0
        self._links = links.Links()
        self._ruleset = Ruleset()
        self._forwarding = Forwarding(tag, self._ruleset)
        self._clerk = Clerk(tag, words, block.gateway, watch, self.open_addresses)
        self._connections: dict[int, Connection] = {}
        self._leaving: list[Connection] = []
        self._used: dict[IPv4Address, int] = {}
        self._forgetting = Forgetting(watch, self._forgotten)
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Egress {self._block}, {len(self._connections)} connected, {len(self._leaving)} leaving>"

    @property
    def pids(self) -> set[int]:
        """The processes that it has started."""
        return self._clerk.pids | self._forgetting.pids

    def _open(self) -> None:
        table = rules.table(self._tag, self._block, self._private, _most_tracked())
        self._forwarding.turn_off()
        self._forwarding.turn_on(table)
        self._clerk.open()
        self._changes.bind((0, 1))  # RTMGRP_LINK
        self._watch(self._changes.fileno(), self._hear_of_links)
        self._is_open = True

    def connect(self, namespace: int) -> Connection:
        """Let a namespace out, though its names are not answered yet. Raises `OSError`."""
        if not self._is_open:
            self._open()
        connection = self._new_connection()
        self._connections[int(connection.address)] = connection
        try:
            self._link(connection, namespace)
        except OSError:
            self.disconnect(connection)
            raise
        return connection

    def narrow(self, connection: Connection, targets: tuple[Target, ...]) -> None:
        """From here on nowhere but to `targets`, unless there are none; and names are answered.

        HOLDS: no stranger's code has run in it. Raises `OSError`.
        """
        connection.targets = targets
        self._change_listed(connection, "add")
        self._clerk.see_to_it()
        self._clerk.welcome(connection.address, connection.serial, tuple(map(str, targets)))

    def _new_connection(self) -> Connection:
        if not self._free:
            raise OSError(errno.EAGAIN, f"all addresses of {self._block} are taken by sandboxes with egress")
        slot = self._free.popleft()
        self._serial += 1
        address = IPv4Address(self._block.address(slot))
        return Connection(slot, self._serial, f"{prefix_of(self._tag)}{slot:x}", address)

    def _link(self, connection: Connection, namespace: int) -> None:
        gateway, own = IPv4Address(self._block.gateway), connection.address
        self._links.do(links.new_pair(connection.name, INSIDE, namespace))
        setns(namespace, CLONE_NEWNET)
        try:
            inside, there = links.Links(), socket.if_nametoindex(INSIDE)
        finally:
            setns(self._home, CLONE_NEWNET)
        try:
            inside.do(
                links.without_ipv6(there),
                links.address(there, own, gateway),
                links.up(there),
                links.default_route(there, gateway, own),
            )
            here = socket.if_nametoindex(connection.name)
            self._links.do(links.without_ipv6(here), links.address(here, gateway, own), links.up(here))
            inside.do(links.awake(there))
        finally:
            inside.close()

    def disconnect(self, connection: Connection) -> None:
        """HOLDS: no process of it is left, and its namespace is given up next."""
        del self._connections[int(connection.address)]
        self._clerk.take_leave(connection.address)
        self._change_listed(connection, "delete")
        self._delete_answered(connection)
        self._leaving.append(connection)

    def _change_listed(self, connection: Connection, verb: str) -> None:
        if not connection.targets:
            return
        table, name = table_of(self._tag), f'"{connection.name}"'
        said = f"{verb} element inet {table} narrowed {{ {name} }}\n"
        for place in rules.places(connection.targets):
            said += f"{verb} element inet {table} listed {{ {name} . {place} }}\n"
        self._ruleset.run(said)

    # What names open

    def open_addresses(self, asked: Open) -> bool:
        """Whether what the resolver asks for is open now: each field checked, for it may have been fooled."""
        connection = self._connections.get(asked.client)
        if connection is None or connection.serial != asked.serial or asked.targets >> MOST_TARGETS:
            return False
        chosen = [target for at, target in enumerate(connection.targets) if asked.targets >> at & 1]
        addresses = [IPv4Address(number) for number in asked.addresses]
        if not all(target.name for target in chosen) or asked.targets >> len(connection.targets):
            return False
        if not all(is_reachable(address, self._private) for address in addresses):
            return False
        span_s = min(max(asked.span_s, SPAN_S[0]), SPAN_S[1]) + GRACE_S
        return self._answered(connection, {(one, to.port) for one in addresses for to in chosen}, span_s)

    def _answered(self, connection: Connection, wanted: set[tuple[IPv4Address, int]], span_s: int) -> bool:
        now = time.monotonic()
        connection.opened = {place: until for place, until in connection.opened.items() if until > now}
        short = {place for place in wanted if connection.opened.get(place, 0.0) < now + span_s - GRACE_S / 2}
        if len(connection.opened.keys() | wanted) > MOST_OPENED:
            return False
        if short:
            # Added first, so that taking away does not fail; a time cannot be changed in place.
            renewed = [self._element(connection, place, verb, span_s) for place in short for verb in RENEW]
            self._ruleset.run("".join(renewed))
            connection.opened.update(dict.fromkeys(short, now + span_s))
        return True

    def _delete_answered(self, connection: Connection) -> None:
        said = [
            self._element(connection, place, verb, SPAN_S[0])
            for place in connection.opened
            for verb in RENEW[:2]
        ]
        if said:
            self._ruleset.run("".join(said))

    def _element(self, connection: Connection, place: tuple[IPv4Address, int], verb: str, span_s: int) -> str:
        address, port = place
        where = "answered" if port else "answered_whole"
        key = f'"{connection.name}" . {address}' + (f" . {port}" if port else "")
        timeout = f" timeout {span_s}s" if verb == "add" else ""
        return f"{verb} element inet {table_of(self._tag)} {where} {{ {key}{timeout} }}\n"

    # How it ends

    def _hear_of_links(self) -> None:
        try:
            while self._changes.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        self.tend()

    def tend(self) -> None:
        """Have those that have gone forgotten; then their addresses are anybody's again."""
        there = {name for _, name in socket.if_nameindex()} if self._leaving else set()
        for connection in [one for one in self._leaving if one.name not in there]:
            self._leaving.remove(connection)
            self._used[connection.address] = connection.slot
            self._forgetting.add(connection.address)

    def _forgotten(self, addresses: list[IPv4Address]) -> None:
        self._free += [self._used.pop(address) for address in addresses]

    def close(self) -> None:
        """Leave the host as it was. HOLDS: every sandbox has ended and given its namespace up."""
        if self._is_open:
            self._clerk.close()
            give_up = time.monotonic() + GONE_S
            while self._leaving and time.monotonic() < give_up:
                time.sleep(0.002)
                self.tend()
            remove_links(self._tag)
            self.tend()
            self._forgetting.close()
            self._forwarding.turn_off()
            self._is_open = False


RENEW = ("add", "delete", "add")


def _most_tracked() -> int:
    """How many connections the kernel has room for; it says so once it keeps track of any."""
    try:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    except FileNotFoundError:
        return 65_536


def remove_links(tag: str) -> None:
    """Whatever link carries our name."""
    ours = [index for index, name in socket.if_nameindex() if name.startswith(prefix_of(tag))]
    if ours:
        netlink = links.Links()
        try:
            for index in ours:
                try:
                    netlink.do(links.gone(index))
                except OSError as error:
                    if error.errno != errno.ENODEV:
                        raise
        finally:
            netlink.close()


def sweep(tag: str) -> None:
    """Remove what an earlier life of this node has left. Raises `OSError`."""
    remove_links(tag)
    ruleset = Ruleset()
    try:
        Forwarding(tag, ruleset).turn_off()
    finally:
        ruleset.close()
