"""What connecting sandboxes needs of the host beside our own table, and how all of it is put back.

A host usually does not forward packets. We turn it on, and a chain without rules in our own table says that
it was us: made with the table, before the switch is thrown, it is there for whoever sweeps after a
`kill -9`, and gone after a restart of the machine, as the switch is.

HOLDS: an exchange of the marker between nodes happens under `_turn`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stoker.linux.nftables import Ruleset
from stoker.sandboxes.lean.egress.block import prefix_of, table_of

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
OURS = re.compile(r"stoker_[a-z0-9]{8}")
MARKER = "was_off_"
DOCKER = "DOCKER-USER"  # the one place where Docker, whose policy is to drop, lets others speak
PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
TURN_S = 2.0


class Forwarding:
    """The host's part in letting sandboxes out."""

    def __init__(self, tag: str, ruleset: Ruleset) -> None:
        self._tag = tag
        self._table = table_of(tag)
        self._ruleset = ruleset

    def __repr__(self) -> str:
        return f"<Forwarding for {self._table}>"

    def turn_on(self, table: str) -> None:
        """Put the table in force and let the host forward. Raises `OSError`; then `turn_off`."""
        with _turn():
            is_off = SWITCH.read_text().strip() == "0"
            marker = f"add chain inet {self._table} {MARKER}{_digest(self._strangers())}" if is_off else ""
            self._ruleset.run(f"{table}\n{marker}\n")
            if is_off:
                SWITCH.write_text("1")
                _log("turned net.ipv4.ip_forward on")
        self._pass_docker()

    def turn_off(self) -> None:
        """Remove every trace. Does nothing where there is none."""
        if not self.is_on():
            return
        for rule in _docker_rules(self._comment):
            _iptables("-D", *rule)
        with _turn():
            marker = next((name for name in self._chains(self._table) if name.startswith(MARKER)), None)
            if marker is not None:
                self._put_back(marker)
            self._ruleset.run(f"delete table inet {self._table}\n")

    def is_on(self) -> bool:
        return self._table in self._tables()

    @property
    def _comment(self) -> str:
        return self._table

    def _put_back(self, marker: str) -> None:
        """Forwarding off, unless somebody else needs it by now."""
        others = [name for name in self._tables() if name != self._table]
        strangers = self._strangers()
        if others:
            self._ruleset.run(f"add chain inet {others[0]} {marker}\n")
        elif strangers and _digest(strangers) != marker.removeprefix(MARKER):
            _log(f"net.ipv4.ip_forward stays on for {', '.join(strangers)}")
        else:
            SWITCH.write_text("0")
            _log("turned net.ipv4.ip_forward off again")

    def _list(self, what: str) -> list[dict[str, Any]]:
        said = json.loads(self._ruleset.run(f"list {what}\n") or "{}")
        listed: list[dict[str, Any]] = said.get("nftables", [])
        return listed

    def _tables(self) -> list[str]:
        names = (item["table"]["name"] for item in self._list("tables inet") if "table" in item)
        return [name for name in names if OURS.fullmatch(name)]

    def _chains(self, table: str) -> list[str]:
        chains = (item["chain"] for item in self._list("chains inet") if "chain" in item)
        return [chain["name"] for chain in chains if chain["table"] == table]

    def _strangers(self) -> list[str]:
        """Chains of others that see what is forwarded."""
        chains = (item["chain"] for item in self._list("chains") if "chain" in item)
        found = {
            f"{chain['family']} {chain['table']} {chain['name']}"
            for chain in chains
            if chain.get("hook") == "forward" and not OURS.fullmatch(chain["table"])
        }
        return sorted(found | _legacy_tables())

    def _pass_docker(self) -> None:
        if _iptables("-n", "-L", DOCKER) is None:
            return
        comment = ("-m", "comment", "--comment", self._comment)
        links = f"{prefix_of(self._tag)}+"
        back = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
        for rule in (("-i", links, *comment), ("-o", links, *back, *comment)):
            if _iptables("-I", DOCKER, *rule, "-j", "ACCEPT") is None:
                raise OSError(errno.EPERM, f"no rule can be added to iptables' chain {DOCKER}")
        _log(f"added two rules to iptables' chain {DOCKER}")


def _digest(strangers: list[str]) -> str:
    return hashlib.blake2s("\n".join(strangers).encode(), digest_size=4).hexdigest()


def _legacy_tables() -> set[str]:
    try:
        names = Path("/proc/net/ip_tables_names").read_text().split()
    except OSError:
        return set()
    return {"iptables filter"} & {f"iptables {name}" for name in names}


def _docker_rules(comment: str) -> Iterator[list[str]]:
    """Ours, as arguments."""
    for line in (_iptables("-S", DOCKER) or "").splitlines():
        words = [word.strip('"') for word in line.split()]
        if words[:1] == ["-A"] and comment in words:
            yield words[1:]


def _iptables(*arguments: str) -> str | None:
    """What it prints; None where there is no such program or it fails."""
    program = shutil.which("iptables", path=PATHS)
    if program is None:
        return None
    reading, writing = os.pipe()
    nowhere = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate((nowhere, writing, nowhere))]
    pid = os.posix_spawn(program, ["iptables", "-w", *arguments], {"PATH": PATHS}, file_actions=actions)
    os.close(writing)
    os.close(nowhere)
    with open(reading, encoding="utf-8", errors="replace") as file:
        said = file.read()
    return said if os.waitpid(pid, 0)[1] == 0 else None


def _log(text: str) -> None:
    print(f"egress: {text}", file=sys.stderr, flush=True)


@contextmanager
def _turn() -> Iterator[None]:
    """One node of this machine at a time; who holds it for longer than it takes has died or hangs."""
    give_up = time.monotonic() + TURN_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as turn:
        while time.monotonic() < give_up:
            try:
                turn.bind("\0stoker-forwarding")
                break
            except OSError:
                time.sleep(0.002)
        yield
