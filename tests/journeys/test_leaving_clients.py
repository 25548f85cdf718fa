"""Clients that do not wait for their answer: their calls end with them, wherever they are on their way."""

from __future__ import annotations

import socket
import struct

import pytest

from journeys.running import RunningNode

pytestmark = pytest.mark.usefixtures("healthy_after")

SLEEPS = "import time\ndef lambda_handler(event, context):\n    time.sleep(600)\n"
REQUEST = b"GET /execute?name=slow HTTP/1.1\r\nhost: a\r\n\r\n"


def cancelled(node: RunningNode) -> int:
    count: int = node.ask("GET", "/stats").json["data"]["calls"]["outcomes"]["cancelled"]
    return count


@pytest.mark.parametrize("reuse", ["none", "sandbox", "process"])
@pytest.mark.parametrize("is_inside", [False, True], ids=["while it waits", "as soon as it is inside"])
def test_a_client_that_leaves_takes_its_call_along(node: RunningNode, is_inside: bool, reuse: str) -> None:
    node.package("slow", {"main.py": SLEEPS}, {"timeout": 600, "reuse": reuse})
    node.ask("GET", "/clear?reset_images=true")
    before = cancelled(node)
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(REQUEST)
        if is_inside:
            node.wait_for_pool(lambda pool: pool["busy"] > 0)
    node.wait_for_stats(lambda stats: stats["calls"]["outcomes"]["cancelled"] == before + 1)


def test_a_client_that_leaves_in_the_middle_of_its_body_costs_nothing(node: RunningNode) -> None:
    before = cancelled(node)
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(b"POST /execute?name=hello HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{")
    node.wait_until_quiet()
    assert cancelled(node) == before


def test_clients_that_ask_much_at_once_and_hang_up_do_not_end_the_node(node: RunningNode) -> None:
    asked = b"GET /execute?name=nobody HTTP/1.1\r\nhost: a\r\n\r\n" * 300
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", node.port)) as client:
            client.sendall(asked)
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
