from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stoker.cli.exits import FAILED, NODE, OK, REFUSED, UNREACHABLE, USAGE, Failure
from stoker.cli.remote import client
from stoker.cli.remote.calling import event_of, invoke
from stoker.cli.remote.client import Target
from stoker.errors import SettingsError

SAID = {
    "/health": (200, {"data": {"status": "ok"}}),
    "/functions/good/call": (200, {"sum": 3}),
    "/functions/bad/call": (500, {"error": {"type": "ValueError", "message": "no", "stack": "line 1"}}),
    "/functions/slow/call": (504, {"error": {"type": "TimedOut", "message": "too slow"}}),
    "/functions/absent/call": (404, {"error": {"type": "no_such_function", "message": "there is none"}}),
    "/functions/broken/call": (500, {"error": {"type": "sandbox_failed", "message": "no room"}}),
    "/functions/typo/call": (400, {"error": {"type": "BadEvent", "message": "not JSON"}}),
}


class Node(BaseHTTPRequestHandler):
    """A node as the client sees one: fixed answers, the headers of a call, the log of a call."""

    def do_GET(self) -> None:
        record = {"id": "f" * 32, "status": "ok", "stdout": "printed\n", "stderr": ""}
        self.reply(*SAID.get(self.path, (200, {"data": [record]})))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(*SAID[self.path])

    def reply(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Invocation-Id", "f" * 32)
        self.send_header("Server-Timing", "admit;dur=0.010, run;dur=1.500")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Node) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_good_answer_is_its_data(url: str) -> None:
    assert client.data(client.ask(url, "GET", "/health")) == {"status": "ok"}


def test_nobody_at_the_port_is_unreachable(free_port: int) -> None:
    with pytest.raises(Failure) as caught:
        client.ask(f"http://127.0.0.1:{free_port}", "GET", "/health")
    assert caught.value.code == UNREACHABLE
    assert str(caught.value) == (
        f"no node answers at http://127.0.0.1:{free_port} (Connection refused); `stoker start` starts one"
    )


def test_a_stranger_at_the_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(Failure, match="is no node, or it has just ended"):
            client.ask(f"http://127.0.0.1:{port}", "GET", "/health")
        thread.join()


@pytest.mark.parametrize("url", ["127.0.0.1:8222", "ftp://host", "http://host:port", "http://[::1"])
def test_what_is_no_url_is_a_mistake_of_the_user(url: str) -> None:
    with pytest.raises(Failure, match="is no address of a node") as caught:
        client.ask(url, "GET", "/health")
    assert caught.value.code == USAGE


@pytest.mark.parametrize("said", [b"<html>", b"[]", b'"data"', b"{}"])
def test_an_answer_of_another_shape_is_said(said: bytes) -> None:
    with pytest.raises(Failure, match="what answered is no node"):
        client.data(client.Reply(200, {}, said))
    assert client.failure(client.Reply(502, {}, said)).code == NODE
    assert str(client.failure(client.Reply(404, {}, said))).startswith("HTTP 404: ")


def test_the_whole_outcome_of_a_call_is_told(url: str) -> None:
    answer = invoke(url, "good", b"{}")
    assert (answer.exit_code, answer.status, answer.result, answer.error) == (OK, "ok", {"sum": 3}, None)
    assert (answer.id, answer.stdout) == ("f" * 32, "printed\n")
    assert answer.phases_ms == {"admit": 0.01, "run": 1.5}


@pytest.mark.parametrize(("name", "kind"), [("bad", "ValueError"), ("slow", "TimedOut")])
def test_a_function_that_fails_is_an_answer(url: str, name: str, kind: str) -> None:
    answer = invoke(url, name, b"{}")
    assert (answer.exit_code, answer.result) == (FAILED, None)
    assert answer.error is not None
    assert answer.error["type"] == kind


@pytest.mark.parametrize(("name", "code"), [("absent", REFUSED), ("typo", REFUSED), ("broken", NODE)])
def test_what_the_node_refuses_or_cannot_do_is_no_answer(url: str, name: str, code: int) -> None:
    with pytest.raises(Failure) as caught:
        invoke(url, name, b"{}")
    assert caught.value.code == code


def test_an_event_comes_from_the_line_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "event.json").write_bytes(b"[1]")
    assert event_of(None) == b"{}"
    assert event_of('{"a": 1}') == b'{"a": 1}'
    assert event_of(f"@{tmp_path}/event.json") == b"[1]"
    with pytest.raises(Failure, match="cannot be read: No such file or directory"):
        event_of("@/no/such/file")


def test_a_named_node_is_taken_at_its_word(tmp_path: Path) -> None:
    assert client.find(Target(url="http://there:1/")).url == "http://there:1"
    assert client.find(Target(port=9000, home=str(tmp_path))).url == "http://127.0.0.1:9000"
    with pytest.raises(Failure, match=f"no node runs in {tmp_path}"):
        client.find(Target(home=str(tmp_path)))
    with pytest.raises(SettingsError):
        client.find(Target(home="\0"))
