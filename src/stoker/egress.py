"""What may be reached from inside: addresses that never are, private ones, and lists of targets as people
write them.

Everything speaks IPv4: a sandbox has no other. Read by the node, the helper and the resolver, so
nothing is imported that the helper would not want to carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import NamedTuple

# "This network", loopback, link-local with the metadata services, multicast, reserved with broadcast.
# No setting opens these; nor any address of the host itself, which only the kernel knows.
NEVER = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")))
# Ranges that mean something else in each place; only the operator can open them.
PRIVATE = tuple(
    map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"))
)
MOST_TARGETS = 64
ANY_PORT = 0
ALLOWED = (
    "a name, *.name or an IPv4 address or network, each with or without :port, "
    "such as example.org:443, *.example.org or 203.0.113.0/24:443"
)

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]{1,5}")


class Target(NamedTuple):
    """One entry of a list: a name or a network, and a port or any."""

    name: str
    """Lower-case, without a dot at its end; `*.` before it stands for every name below. Empty: a network."""
    network: IPv4Network
    port: int

    def __str__(self) -> str:
        network = self.network if self.network.prefixlen < 32 else self.network.network_address
        return f"{self.name or network}{f':{self.port}' if self.port else ''}"

    def means(self, name: str) -> bool:
        """Whether a name, lower-case and without a dot at its end, is among those meant."""
        return name.endswith(self.name[1:]) if self.name.startswith("*.") else name == self.name


NOWHERE = IPv4Network("0.0.0.0/32")


def read_target(text: str) -> Target:
    """Raises `ValueError`, whose text says what is allowed."""
    place, colon, said = text.rpartition(":") if ":" in text else (text, "", "")
    port = int(said) if _NUMBER.fullmatch(said) else ANY_PORT
    if colon and not 0 < port < 65536:
        raise ValueError(f"{ALLOWED}; a port is from 1 to 65535")
    if ":" in place:
        raise ValueError(f"{ALLOWED}; there is no IPv6 inside")
    if re.fullmatch(r"[0-9./]+", place):
        return Target("", _network(place), port)
    name = place.lower().removesuffix(".")
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(ALLOWED)
    return Target(name, NOWHERE, port)


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise ValueError(f"{ALLOWED}; a network has no bits set below its length") from None
    if any(network.subnet_of(never) for never in NEVER):
        raise ValueError(f"{ALLOWED}, and not of the ranges that nothing opens: {', '.join(map(str, NEVER))}")
    return network


def read_networks(text: str) -> tuple[Target, ...]:
    """The operator's list, its entries separated by commas or spaces. Raises `ValueError`."""
    targets = tuple(map(read_target, text.replace(",", " ").split()))
    for target in targets:
        if target.name:
            raise ValueError(f"{target.name!r} is a name; networks with or without :port are allowed")
    return targets


def read_servers(text: str) -> tuple[tuple[str, int], ...]:
    """Name servers as addresses, IPv4 or IPv6, with a port after the address: `192.0.2.1`, `192.0.2.1:5353`,
    `[2001:db8::1]:53`, separated by commas or spaces. Raises `ValueError`."""
    return tuple(map(_server, text.replace(",", " ").split()))


def _server(text: str) -> tuple[str, int]:
    from ipaddress import ip_address

    found = re.fullmatch(
        r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})|([0-9A-Fa-f:.]+)", text
    )
    if found is None:
        raise ValueError(f"{text!r} is no address")
    port = int(found[2] or found[4] or 53)
    if not 0 < port < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return str(ip_address(found[1] or found[3] or found[5])), port


def is_reachable(address: IPv4Address, opened: Iterable[Target]) -> bool:
    """Whether an address is neither one of `NEVER`, nor a private one that the operator has not listed."""
    if any(address in network for network in NEVER):
        return False
    return not any(address in network for network in PRIVATE) or any(
        address in target.network for target in opened if not target.name
    )
