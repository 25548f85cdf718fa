"""What a sandbox with egress reaches and what it does not, on real links: the world around is the test's."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from sandboxes.lean.guests import FORKED, LAUNCHES, hello, run, until
from sandboxes.lean.world import (
    BESIDE,
    FORWARDING,
    INNER,
    INTERNET,
    METADATA,
    NAMES,
    NODE,
    OTHER_PRIVATE,
    PRIVATE,
    PUBLIC,
    THERE,
    Greeter,
    World,
    Zone,
)
from stoker.errors import SandboxFailed
from stoker.linux.tracking import forget_connections
from stoker.sandboxes.contract import Sandbox, SandboxSpec
from stoker.sandboxes.lean import Backend, Settings
from stoker.sandboxes.lean.egress import rules
from stoker.sandboxes.lean.problems import find_egress_problem
from stoker.types import Limits, Network

CONNECT = """
import socket
def to(address, port):
    try:
        with socket.create_connection((address, port), 20) as stream:
            return stream.recv(64).decode()
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return type(error).__name__
"""
REFUSED, NO_NAME = "ConnectionRefusedError", "no such name"

Make = Callable[..., Awaitable[Sandbox]]


@pytest.fixture
def world() -> Iterator[World]:
    problem = find_egress_problem()
    if problem is not None:
        assert "egress" not in os.environ.get("STOKER_PROMISED", "").split(","), str(problem)
        pytest.skip(str(problem))
    world = World()
    try:
        world.build()
        yield world
        assert (links_of("sk"), tables(), FORWARDING.read_text()) == ([], "", "0\n")
    finally:
        world.leave()


@pytest.fixture
async def greeters(world: World) -> AsyncIterator[dict[str, Greeter]]:
    """At port 80 of every address there is on the other side."""
    greeters = {address: Greeter(world.listen(address, 80)) for address in THERE}
    yield greeters
    for greeter in greeters.values():
        greeter.close()


@pytest.fixture
async def zone(world: World) -> AsyncIterator[Zone]:
    zone = Zone(world.datagrams(NAMES, 53))
    yield zone
    zone.close()


@pytest.fixture
def private() -> str:
    """What the operator opens; a test may say otherwise."""
    return ""


def settings_of(node_id: str, private: str = "") -> Settings:
    return Settings(node_id=node_id, dns_servers=NAMES, egress_private=private, spares=1)


@pytest.fixture
async def lean(world: World, node_id: str, private: str, nothing_left: None) -> AsyncIterator[Backend]:
    backend = Backend(settings_of(node_id, private), LAUNCHES)
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture
async def make(lean: Backend) -> AsyncIterator[Make]:
    """Make one more sandbox with egress, narrowed to what is given."""
    numbers = itertools.count(1)
    made: list[Sandbox] = []

    async def make(*egress: str, network: Network = Network.EGRESS) -> Sandbox:
        spec = SandboxSpec(
            id=f"guest{next(numbers)}", launch=FORKED, limits=Limits(), network=network, egress=egress
        )
        sandbox = await lean.create(spec)
        made.append(sandbox)
        await hello(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        await sandbox.destroy()


async def reach(sandbox: Sandbox, *addresses: str, port: int = 80) -> list[str]:
    """What who answers there says, or how it failed."""
    answer: list[str] = await run(sandbox, CONNECT + f"answer = [to(one, {port}) for one in {addresses!r}]")
    return answer


def links_of(prefix: str) -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith(prefix)]


def tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


async def test_public_addresses_are_reached(make: Make, greeters: dict[str, Greeter]) -> None:
    assert await reach(await make(), *PUBLIC) == list(PUBLIC)
    assert greeters[INTERNET].met == [NODE], "not the node's address, by which alone it is known outside"


async def test_without_egress_nothing_is_reached(make: Make, greeters: dict[str, Greeter]) -> None:
    sandbox = await make(network=Network.NONE)
    assert await reach(sandbox, *PUBLIC, "198.18.0.1") == ["OSError"] * 4  # no route to anywhere


@pytest.mark.parametrize("private", ["", "0.0.0.0/0 10.0.0.0/8 198.18.0.0/15"], ids=["", "all open"])
async def test_neither_host_nor_metadata_nor_neighbour_is_ever_reached(
    make: Make, lean: Backend, greeters: dict[str, Greeter]
) -> None:
    neighbour, sandbox = await make(), await make()
    source = "import socket; socket.s = socket.create_server(('0.0.0.0', 8080)); answer = 1"
    await run(neighbour, source)
    address = (
        "import socket; s = socket.socket(2, 2); s.connect(('203.0.113.10', 9)); answer = s.getsockname()[0]"
    )
    next_door = await run(neighbour, address)
    host = socket.create_server(("0.0.0.0", 8080))  # as the node's own port would be
    with host:
        host.setblocking(False)
        gateway = next_door.rsplit(".", 1)[0] + ".1"
        mapped = [f"::ffff:{one}" for one in (NODE, METADATA, next_door)]
        refused = (
            *(NODE, BESIDE, "10.88.0.255", "203.0.113.255", gateway, next_door, METADATA, "169.254.1.1"),
            *("224.0.0.1", "255.255.255.255", "240.0.0.1", "0.1.2.3", *mapped),
        )
        answers = await reach(sandbox, *refused, port=8080)
        assert [one for one in answers if not one.endswith("Error")] == []
        assert await reach(sandbox, "127.0.0.1", "0.0.0.0", "::1", "localhost") == [REFUSED] * 4
        with pytest.raises(BlockingIOError):
            host.accept()
    assert await reach(sandbox, INTERNET) == [INTERNET]


async def test_ipv6_leads_nowhere(make: Make) -> None:
    answers = await reach(await make(), "2001:db8::1", "fe80::1%eth0", "fd00::1", "ff02::1%eth0")
    assert [one for one in answers if not one.endswith("Error") and one != NO_NAME] == []


async def test_private_networks_are_refused_at_once(make: Make, greeters: dict[str, Greeter]) -> None:
    sandbox = await make()
    assert await reach(sandbox, *INNER) == [REFUSED] * len(INNER)
    source = (
        "import socket; s = socket.socket(2, 2); s.settimeout(20); s.connect(('10.77.0.10', 9)); s.send(b'x')"
    )
    told = "try: s.recv(1)\nexcept OSError as error: answer = error.strerror"
    assert await run(sandbox, f"{source}\n{told}") == "No route to host"


@pytest.mark.parametrize("private", ["10.77.0.0/16:80, 192.168.77.10"])
async def test_a_private_network_is_reached_where_the_operator_lists_it(
    make: Make, world: World, greeters: dict[str, Greeter]
) -> None:
    other = [Greeter(world.listen(address, 81)) for address in (PRIVATE, OTHER_PRIVATE)]
    sandbox, narrowed = await make(), await make(OTHER_PRIVATE, "172.16.0.0/12")
    assert await reach(sandbox, PRIVATE, OTHER_PRIVATE, "172.16.7.7") == [PRIVATE, OTHER_PRIVATE, REFUSED]
    assert await reach(sandbox, PRIVATE, OTHER_PRIVATE, port=81) == [REFUSED, OTHER_PRIVATE]
    # A function's own list narrows and never opens.
    assert await reach(narrowed, PRIVATE, OTHER_PRIVATE, "172.16.7.7") == [REFUSED, OTHER_PRIVATE, REFUSED]
    for greeter in other:
        greeter.close()


async def test_a_list_narrows_to_networks_and_ports(
    make: Make, world: World, greeters: dict[str, Greeter]
) -> None:
    other = Greeter(world.listen(INTERNET, 81))
    sandbox = await make("203.0.113.0/24:80", "203.0.113.10:80", "198.51.100.0/24:80", "198.51.100.7")
    assert await reach(sandbox, *PUBLIC) == [INTERNET, "198.51.100.7", REFUSED]
    assert await reach(sandbox, INTERNET, port=81) == [REFUSED]
    other.close()


async def test_names_are_answered_and_listed_names_are_opened(
    make: Make, world: World, zone: Zone, greeters: dict[str, Greeter]
) -> None:
    other = Greeter(world.listen(INTERNET, 81))
    zone.say("example.org", INTERNET)
    zone.say("a.example.org", "198.51.100.7")
    zone.say("alias.example.org", "example.org", kind="CNAME")
    zone.say("other.net", "192.0.2.7")
    assert await reach(await make(), "example.org", "other.net", "missing.net") == [
        INTERNET,
        "192.0.2.7",
        NO_NAME,
    ]
    sandbox = await make("example.org:80", "alias.example.org:81")
    assert await reach(sandbox, INTERNET) == [REFUSED], "open before its name was asked for"
    answers = await reach(sandbox, "Example.ORG.", "a.example.org", "other.net", "192.0.2.7")
    assert answers == [INTERNET, NO_NAME, NO_NAME, REFUSED]
    assert await reach(sandbox, "example.org", port=81) == [REFUSED]
    assert await reach(sandbox, "alias.example.org", port=81) == [INTERNET]
    below = await make("*.example.org")
    assert await reach(below, "example.org", "a.example.org") == [NO_NAME, "198.51.100.7"]
    assert await reach(below, INTERNET) == [REFUSED], "what was answered to one sandbox is open to another"
    other.close()


async def test_a_name_that_leads_inside_gives_nothing(
    make: Make, zone: Zone, greeters: dict[str, Greeter]
) -> None:
    inner = (PRIVATE, METADATA, "127.0.0.1", "0.0.0.0", "198.18.0.1", "224.0.0.1")
    for at, address in enumerate(inner):
        zone.say(f"{at}.example.org", address)
    zone.say("both.example.org", PRIVATE, INTERNET)
    zone.say("alias.example.org", "0.example.org", kind="CNAME")
    names = [f"{at}.example.org" for at in range(len(inner))]
    for sandbox in (await make(), await make("*.example.org")):
        assert await reach(sandbox, *names, "alias.example.org") == [NO_NAME] * (len(inner) + 1)
        assert await reach(sandbox, "both.example.org") == [INTERNET]
        assert await reach(sandbox, PRIVATE) == [REFUSED]


async def test_a_name_that_changes_its_mind_does_not_help(
    make: Make, zone: Zone, greeters: dict[str, Greeter]
) -> None:
    zone.ttl = 0
    zone.say("rebind.example.org", INTERNET)
    sandbox = await make("rebind.example.org:80")
    assert await reach(sandbox, "rebind.example.org") == [INTERNET]
    zone.say("rebind.example.org", OTHER_PRIVATE)
    assert await reach(sandbox, "rebind.example.org", OTHER_PRIVATE) == [NO_NAME, REFUSED]
    assert greeters[OTHER_PRIVATE].met == []


async def test_no_other_name_server_is_reached_by_who_has_a_list(
    make: Make, zone: Zone, world: World
) -> None:
    zone.say("secret.evil.net", INTERNET)
    ask = f"""
import socket, struct
question = struct.pack("!HHHHHH", 7, 256, 1, 0, 0, 0) + b"\\6secret\\4evil\\3net\\0\\0\\1\\0\\1"
s = socket.socket(2, 2); s.settimeout(20); s.connect(({NAMES!r}, 53)); s.send(question)
try: answer = len(s.recv(512))
except OSError as error: answer = error.strerror
"""
    assert await run(await make("example.org"), ask) == "No route to host"
    assert zone.asked == []
    assert isinstance(await run(await make(), ask), int), "a sandbox without a list may ask whom it likes"


async def test_the_resolver_lives_through_every_question(make: Make, zone: Zone) -> None:
    zone.say("example.org", INTERNET)
    zone.say("example.org", "text " * 40, kind="TXT")
    sandbox = await make()
    await run(
        sandbox,
        """
import socket, os, struct
resolver = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")][0]
s = socket.socket(2, 2)
for length in range(0, 200):
    s.sendto(os.urandom(length), (resolver, 53))
for body in (b"", b"\\0", b"\\0\\0", b"\\xff\\xff" + b"x" * 100, struct.pack("!H", 12) + b"\\0" * 12):
    with socket.create_connection((resolver, 53), 20) as stream:
        stream.sendall(body)
answer = 1
""",
    )
    assert await run(sandbox, "import socket; answer = socket.gethostbyname('example.org')") == INTERNET


async def test_the_resolver_is_nobody_nowhere(make: Make, node_id: str) -> None:
    await make()
    (folder,) = [
        one for one in Path("/proc").glob("[0-9]*") if f"stoker-resolver-{node_id}".encode() in command(one)
    ]
    await until(lambda: "Seccomp:\t2" in (folder / "status").read_text())
    said = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    assert said["Uid"].split() == [str(settings_of(node_id).resolver_uid)] * 4
    assert (int(said["CapEff"], 16), int(said["CapBnd"], 16), said["NoNewPrivs"]) == (0, 0, "1")
    assert said["Groups"].split() == []
    assert os.listdir(folder / "root") == []


def command(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""


async def test_a_resolver_that_was_killed_is_replaced(make: Make, zone: Zone, node_id: str) -> None:
    zone.say("example.org", INTERNET)
    sandbox = await make("example.org")
    ask = "import socket; answer = socket.gethostbyname('example.org')"
    assert await run(sandbox, ask) == INTERNET
    name = f"stoker-resolver-{node_id}".encode()
    (pid,) = [int(one.name) for one in Path("/proc").glob("[0-9]*") if name in command(one)]
    os.kill(pid, 9)
    await make()
    assert await run(sandbox, ask) == INTERNET


async def test_a_flood_of_connections_is_bounded(
    make: Make, world: World, greeters: dict[str, Greeter]
) -> None:
    sandbox, other = await make(), await make()
    flood = """
import socket, errno
open_, refused = [], 0
for port in range(1, 3001):
    s = socket.socket(); s.setblocking(False)
    if s.connect_ex(("203.0.113.10", 9000 + port % 7)) == errno.EINPROGRESS and len(open_) < 900:
        open_.append(s)
    else:
        s.close()
u = socket.socket(2, 2)
for port in range(1, 20001):
    try: u.sendto(b"x", ("198.51.100.7", port))
    except OSError: refused += 1
answer = refused
"""
    await run(sandbox, flood)
    tracked = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    assert tracked <= rules.CONNECTIONS + 100
    assert await reach(other, INTERNET) == [INTERNET], "a neighbour's flood"


async def test_bytes_are_counted_while_it_lives_and_at_its_end(
    make: Make, greeters: dict[str, Greeter]
) -> None:
    sandbox, silent = await make(), await make(network=Network.NONE)
    before = sandbox.usage()
    assert before.network_in_bytes is not None and before.network_out_bytes is not None
    send = "import socket; s = socket.socket(2, 2); s.sendto(b'x' * 1000, ('203.0.113.10', 9)); answer = 1"
    await run(sandbox, send)
    after = sandbox.usage()
    assert after.network_out_bytes is not None
    assert 1000 <= after.network_out_bytes - before.network_out_bytes < 2000
    assert silent.usage().network_in_bytes is None
    await sandbox.destroy()
    usage = (await sandbox.ended).usage
    assert usage.network_out_bytes is not None and usage.network_out_bytes >= after.network_out_bytes
    assert usage.network_in_bytes is not None


async def test_two_sandboxes_bind_the_same_port(make: Make) -> None:
    source = "import socket; s = socket.create_server(('0.0.0.0', 8080)); answer = s.getsockname()[1]"
    assert [await run(await make(), source) for _ in range(2)] == [8080, 8080]


async def test_nobody_connects_to_a_sandbox(make: Make, world: World) -> None:
    sandbox = await make()
    source = "import socket; s = socket.s = socket.create_server(('0.0.0.0', 8080)); s.setblocking(False)\n"
    own = "u = socket.socket(2, 2); u.connect(('203.0.113.10', 9)); answer = u.getsockname()[0]"
    address = await run(sandbox, source + own)
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex((address, 8080))  # from the host itself
        with world.elsewhere():
            subprocess.run(["ip", "route", "add", "198.18.0.0/15", "via", NODE], check=True)
            outer = socket.socket()
        with outer:
            outer.setblocking(False)
            outer.connect_ex((address, 8080))
            heard = "import socket\ntry: socket.s.accept(); answer = 'heard'\n"
            heard += "except BlockingIOError: answer = 'nothing'"
            assert await run(sandbox, heard) == "nothing"


async def test_nothing_is_left_of_one_that_ended(
    make: Make, zone: Zone, greeters: dict[str, Greeter]
) -> None:
    zone.say("example.org", INTERNET)
    sandbox = await make("example.org:80", "198.51.100.0/24")
    assert await reach(sandbox, "example.org", "198.51.100.7") == [INTERNET, "198.51.100.7"]
    own = "import socket; u = socket.socket(2, 2); u.connect(('198.51.100.7', 80))\n"
    own += "answer = u.getsockname()[0]"
    address = IPv4Address(await run(sandbox, own))
    (name,) = narrowed()
    await sandbox.destroy()
    await until(lambda: name not in links_of("sk"))
    await until(lambda: forget_connections([address]) == 0)
    assert narrowed() == []


def narrowed() -> list[str]:
    """The links that the rules speak of by name."""
    said = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return sorted({word.strip('"') for word in said.split() if word.startswith('"sk') and "*" not in word})


async def test_another_node_on_the_machine_is_not_touched(
    make: Make, lean: Backend, home: Path, greeters: dict[str, Greeter]
) -> None:
    other = Backend(settings_of("0therone"), LAUNCHES)
    await other.open()
    try:
        theirs = await other.create(
            SandboxSpec(id="guest", launch=FORKED, limits=Limits(), network=Network.EGRESS)
        )
        await hello(theirs)
        ours = await make()
        assert [await reach(one, INTERNET) for one in (ours, theirs)] == [[INTERNET]] * 2
        await lean.close()
        assert await reach(theirs, INTERNET) == [INTERNET]
        assert FORWARDING.read_text() == "1\n", "the other needs it still"
        await theirs.destroy()
    finally:
        await other.close()


async def test_forwarding_that_was_on_stays_on(world: World, node_id: str, nothing_left: None) -> None:
    FORWARDING.write_text("1")
    backend = Backend(settings_of(node_id), LAUNCHES)
    await backend.open()
    await (
        await backend.create(SandboxSpec(id="guest", launch=FORKED, limits=Limits(), network=Network.EGRESS))
    ).destroy()
    await backend.close()
    assert FORWARDING.read_text() == "1\n"
    FORWARDING.write_text("0")


async def test_forwarding_stays_on_for_who_came_later(make: Make, lean: Backend) -> None:
    await make()
    chain = "add table ip engine; add chain ip engine f { type filter hook forward priority 0; }"
    subprocess.run(["nft", chain], check=True)
    await lean.close()
    assert FORWARDING.read_text() == "1\n"
    subprocess.run(["nft", "delete table ip engine"], check=True)
    FORWARDING.write_text("0")


async def test_docker_is_told_to_let_sandboxes_pass(
    make: Make, lean: Backend, greeters: dict[str, Greeter]
) -> None:
    for words in ("-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP"):
        subprocess.run(["iptables", *words.split()], check=True)
    assert await reach(await make(), INTERNET) == [INTERNET]
    await lean.close()
    said = subprocess.run(["iptables", "-S", "DOCKER-USER"], capture_output=True, text=True, check=True)
    assert said.stdout == "-N DOCKER-USER\n"
    assert FORWARDING.read_text() == "0\n"
    for words in ("-P FORWARD ACCEPT", "-F", "-X"):
        subprocess.run(["iptables", *words.split()], check=True)
    subprocess.run(["nft", "delete table ip filter"], check=True)


async def test_what_a_killed_node_left_is_removed_at_its_next_start(
    world: World, node_id: str, nothing_left: None
) -> None:
    code = """
import asyncio, sys
from sandboxes.lean.guests import FORKED, LAUNCHES, hello
from sandboxes.lean.test_egress import settings_of
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean import Backend
from stoker.types import Limits, Network
async def main():
    backend = Backend(settings_of(sys.argv[1]), LAUNCHES)
    await backend.open()
    spec = SandboxSpec(
        id="guest", launch=FORKED, limits=Limits(), network=Network.EGRESS, egress=("198.51.100.7",)
    )
    await hello(await backend.create(spec))
    print(backend._process.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    import sys

    node = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        node_id,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert node.stdout is not None
    guardian = int(await node.stdout.readline())
    helper = int(Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()[0])
    for pid in (helper, guardian, node.pid):
        os.kill(pid, 9)
    await node.wait()
    await until(
        lambda: (
            not any(
                f"stoker-resolver-{node_id}".encode() in command(one) for one in Path("/proc").glob("[0-9]*")
            )
        )
    )
    assert f"stoker_{node_id}" in tables() and FORWARDING.read_text() == "1\n"
    backend = Backend(settings_of(node_id), LAUNCHES)
    await backend.open()
    await until(lambda: (links_of("sk"), tables(), FORWARDING.read_text()) == ([], "", "0\n"))
    await backend.close()


async def test_a_helper_that_was_killed_leaves_no_way_behind(
    make: Make, lean: Backend, greeters: dict[str, Greeter]
) -> None:
    from sandboxes.lean.guests import helper_pid

    sandbox = await make()
    os.kill(helper_pid(lean), 9)
    await sandbox.ended
    assert await reach(await make(), INTERNET) == [INTERNET]
    await until(lambda: len(links_of("sk")) <= 2)  # the new one's, and a spare's


async def test_a_machine_without_a_free_block_says_so(world: World, node_id: str, nothing_left: None) -> None:
    claims = [socket.socket(socket.AF_UNIX) for _ in range(32)]
    for number, claim in enumerate(claims):
        claim.bind(f"\0stoker-block-{number}")
    backend = Backend(settings_of(node_id), LAUNCHES)
    await backend.open()
    spec = SandboxSpec(id="guest", launch=FORKED, limits=Limits(), network=Network.EGRESS)
    with pytest.raises(SandboxFailed, match=r"no block of 198\.18\.0\.0/15 is free"):
        await backend.create(spec)
    await backend.close()
    for claim in claims:
        claim.close()


def test_without_root_there_is_no_egress_and_the_reason_is_said() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            os.write(writing, str(Backend(Settings(), ()).lacks(Network.EGRESS)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        assert said.read() == (
            "it changes the machine's network, for which the node has to be started by root; use sudo"
        )
    os.waitpid(child, 0)


async def test_a_build_with_egress_asks_for_names_as_a_function_does(
    lean: Backend, zone: Zone, folder: Path, greeters: dict[str, Greeter]
) -> None:
    zone.say("index.example.org", INTERNET)
    spec = SandboxSpec(id="build", launch=FORKED, limits=Limits(), workspace=folder, network=Network.EGRESS)
    os.chown(folder, 64_321, 64_321)
    sandbox = await lean.create(spec)
    await hello(sandbox)
    assert await reach(sandbox, "index.example.org", PRIVATE) == [INTERNET, REFUSED]
    await sandbox.destroy()
