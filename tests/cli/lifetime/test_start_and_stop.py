from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from cli.conftest import Shell, is_alive
from stoker.cli.exits import NODE, UNREACHABLE, USAGE
from stoker.cli.lifetime import home as homes
from stoker.cli.lifetime.locks import holder


def url_in(text: str) -> str:
    found = re.search(r"answers on (http://\S+),", text)
    assert found is not None, text
    return found[1]


def test_a_daemon_answers_when_its_parent_returns(shell: Shell) -> None:
    done = shell.run("start", "-d")
    assert done.returncode == 0, done.stderr
    with urllib.request.urlopen(f"{url_in(done.stderr)}/health") as reply:
        assert reply.status == 200
    assert f"process {shell.pid()}, log in daemon.log" in done.stderr
    assert os.getsid(shell.pid()) == shell.pid()
    told = [json.loads(line)["message"] for line in (shell.folder / "daemon.log").read_text().splitlines()]
    # Before it, where that is so, what is weaker on this machine.
    assert [message for message in told if message.startswith("Stoker answers on http://127.0.0.1:")], told


def test_a_port_on_the_command_line_is_the_port(shell: Shell, free_port: int) -> None:
    shell.does("start", str(free_port), "-d")
    with socket.create_connection(("127.0.0.1", free_port)):
        pass


def test_stop_ends_the_daemon_and_removes_its_file(node: Shell) -> None:
    pid = node.pid()
    node.does("stop")
    assert not is_alive(pid)
    assert not (node.folder / "daemon.pid").exists()
    assert (node.folder / "daemon.log").read_text().endswith('stopped"}\n')


def test_a_second_start_from_one_folder_says_so_and_harms_nothing(node: Shell) -> None:
    pid, port = node.pid(), holder(node.folder / "daemon.pid").mark  # type: ignore[union-attr]
    said = node.fails(NODE, "start", "-d")
    assert said == (
        f"stoker: a node runs from here already (process {pid}, port {port}); `stoker stop` ends it\n"
    )
    assert node.pid() == pid
    node.does("status")


def test_a_second_node_in_one_home_is_refused_by_name(node: Shell, tmp_path: Path) -> None:
    pid, port = node.pid(), homes.find(node.home).port  # type: ignore[union-attr]
    other = Shell(tmp_path, node.home)
    assert other.fails(NODE, "start") == (
        f"stoker: {node.home} is the home of a node that runs: process {pid}, port {port}; "
        "stop that one, or give this one another --home\n"
    )
    assert f"process {pid}, port {port}" in other.fails(NODE, "start", "-d")
    assert not (tmp_path / "daemon.pid").exists()


def test_a_taken_port_is_said_at_once_with_who_has_it(shell: Shell, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        said = shell.fails(NODE, "start", str(free_port))
        assert said.startswith(f"stoker: port {free_port} of 127.0.0.1 is taken by ")
        assert f"(process {os.getpid()})" in said
        assert shell.fails(NODE, "start", str(free_port), "-d") == said
    assert not (shell.folder / "daemon.pid").exists()


def test_a_start_that_fails_shows_why_and_leaves_no_pid(shell: Shell) -> None:
    said = shell.fails(NODE, "start", "-d", "--sandbox", "gvisor")
    assert "no 'gvisor' in sandboxes; there is " in said
    assert "the node did not start: it ended with code 5; see daemon.log" in said
    assert not (shell.folder / "daemon.pid").exists()
    assert "no 'gvisor' in sandboxes" in (shell.folder / "daemon.log").read_text()


def test_a_wrong_setting_ends_a_start_before_it_begins(shell: Shell) -> None:
    assert shell.fails(USAGE, "start", "-d", "--set", "pool_nun=3") == (
        "stoker: --pool-nun is no setting; did you mean 'pool_num'?\n"
    )
    assert shell.fails(USAGE, "start", "http") == (
        "stoker: --port: 'http' is not allowed; port is a whole number from 0 to 65535\n"
    )
    assert list(shell.folder.iterdir()) == []


def test_a_killed_daemon_leaves_a_stale_file_that_stop_says_and_start_replaces(node: Shell) -> None:
    pid = node.pid()
    os.kill(pid, signal.SIGKILL)
    said = wait_stale(node)
    assert f"daemon.pid is stale: process {pid} is gone, or is no node; nothing was stopped" in said
    done = node.run("start", "-d")
    assert done.returncode == 0, done.stderr
    assert f"daemon.pid is stale (process {pid} is gone or is no node); it is replaced" in done.stderr
    node.does("status")


def wait_stale(shell: Shell) -> str:
    while holder(shell.folder / "daemon.pid") is not None:
        os.sched_yield()
    return shell.fails(UNREACHABLE, "stop")


def test_stop_without_a_daemon_is_a_clear_error(shell: Shell) -> None:
    assert shell.fails(UNREACHABLE, "stop") == (
        f"stoker: no daemon.pid in {shell.folder}: no node was started there with `start -d`\n"
    )


def test_a_node_is_stopped_by_its_home_from_anywhere(node: Shell, tmp_path: Path) -> None:
    pid = node.pid()
    elsewhere = Shell(tmp_path, node.home)
    elsewhere.does("stop", "--home", str(node.home))
    assert not is_alive(pid)


def started(process: subprocess.Popen[str]) -> str:
    """The line that says so; what is weaker on this machine may be told before it."""
    assert process.stderr is not None
    return next((line for line in process.stderr if "answers on" in line), "it ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_node_in_the_foreground_ends_well_when_told(shell: Shell, number: signal.Signals) -> None:
    with shell.begin("start") as process:
        assert url_in(started(process)).startswith("http://127.0.0.1:")
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 0


def test_a_node_told_to_stop_while_it_starts_does(shell: Shell) -> None:
    with shell.begin("start") as process:
        while holder(shell.home / "node.lock") is None:
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode in (0, 128 + signal.SIGTERM)


SLOW = """
import time

def lambda_handler(event, context):
    time.sleep(1)
    return "done"
"""


def test_a_call_inside_ends_before_the_node_does(node: Shell) -> None:
    (node.folder / "slow.py").write_text(SLOW)
    node.does("deploy", "slow.py")
    with node.begin("invoke", "slow") as call:
        while json.loads(node.does("status", "--json"))["pool"]["busy"] == 0:
            pass
        node.does("stop")
        assert call.communicate()[0] == '"done"\n'
    assert call.returncode == 0


def test_two_nodes_live_side_by_side(node: Shell, tmp_path: Path, folder: Path) -> None:
    second = folder / "second"
    second.mkdir()
    other = Shell(second, second / "home")
    other.does("start", "-d")
    try:
        urls = [json.loads(one.does("status", "--json"))["url"] for one in (node, other)]
        assert urls[0] != urls[1]
    finally:
        other.does("stop")
    node.does("status")
