"""Attacks over the network, where there is none."""

from __future__ import annotations

import socket

from trying import breaches

WAIT_S = 1.0


def reaches_out(event):
    places = {
        "internet": (socket.AF_INET, ("1.1.1.1", 80)),
        "internet by name": (socket.AF_INET, ("example.org", 80)),
        "metadata": (socket.AF_INET, ("169.254.169.254", 80)),
        "node": (socket.AF_INET, ("127.0.0.1", event["port"])),
        "node as any": (socket.AF_INET, ("0.0.0.0", event["port"])),
        "node mapped": (socket.AF_INET6, ("::ffff:127.0.0.1", event["port"])),
        "node six": (socket.AF_INET6, ("::1", event["port"])),
        "private": (socket.AF_INET, ("10.0.0.1", 80)),
        "gateway": (socket.AF_INET, (event.get("gateway", "192.168.0.1"), 53)),
    }
    return breaches({name: lambda place=place: _connect(*place) for name, place in places.items()})


def _connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.settimeout(WAIT_S)
        line.connect(address)


def sends_what_nobody_asked_for(event):
    return breaches(
        {
            "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
                b"x", ("8.8.8.8", 53)
            ),
            "broadcast": _broadcast,
            "multicast": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
                b"x", ("224.0.0.1", 5353)
            ),
            "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
            "raw six": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58),
            "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
            "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
            "crypto": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
            "bluetooth": lambda: socket.socket(31, socket.SOCK_RAW),
            "xdp": lambda: socket.socket(44, socket.SOCK_RAW),
        }
    )


def _broadcast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        line.sendto(b"x", ("255.255.255.255", 9))


def sees_others_sockets(event):
    with open("/proc/net/unix") as file:
        unix = [line.split()[-1] for line in file if "@" in line or "/" in line]
    with open("/proc/net/dev") as file:
        devices = [line.split(":")[0].strip() for line in file if ":" in line]
    with open("/proc/net/tcp") as file:
        lines = file.readlines()[1:]
    return unix + [name for name in devices if name != "lo"] + lines
