from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stoker.cli.exits import NODE, Failure
from stoker.cli.lifetime import ports
from stoker.settings import Settings


def refusal(host: str, port: int) -> str:
    with pytest.raises(Failure) as caught:
        ports.listen(Settings(home=Path("/nowhere"), host=host, port=port))
    assert caught.value.code == NODE
    return str(caught.value)


def test_a_taken_port_is_said_with_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = Path("/proc/self/comm").read_text().strip()
        assert refusal("127.0.0.1", port) == (
            f"port {port} of 127.0.0.1 is taken by {program} (process {os.getpid()}); "
            "choose another one, or 0 for any that is free"
        )


def test_port_0_is_any_that_is_free() -> None:
    with ports.listen(Settings(home=Path("/nowhere"), port=0)) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with socket.create_connection((host, port)):
            pass


def test_a_host_that_is_none_is_said() -> None:
    assert refusal("no.such.host.invalid", 1234).startswith("host 'no.such.host.invalid' cannot be found: ")


def test_an_address_of_another_machine_is_said() -> None:
    assert refusal("192.0.2.1", 1234) == "host '192.0.2.1' is no address of this machine"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_a_url_is_one_that_a_client_here_can_reach(host: str, url: str) -> None:
    assert ports.url_of(host, 80) == url
