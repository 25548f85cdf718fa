"""Every end told apart for certain, in two languages and every way of reuse, in the reply and the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journeys.running import Answer, RunningNode, together

FUNCTIONS = Path(__file__).parent.parent / "functions" / "doomed"
MEBIBYTE = 1024 * 1024
CPU_S, TIMEOUT_S = 0.5, 1.5
LIMITS: dict[str, dict[str, Any]] = {
    "": {"memory_mb": 160, "timeout": "50s", "cpu_time": CPU_S},  # the machine may be busy
    "-hasty": {"memory_mb": 160, "timeout": TIMEOUT_S},
}
LATE_S = 0.2

PYTHON, NODEJS = ("python", "main.py"), ("nodejs", "index.js")
REUSES = ("none", "process", "sandbox")

Verdict = dict[str, Any]


@pytest.fixture(scope="module", params=[PYTHON, NODEJS], ids=lambda param: param[0])
def language(request: pytest.FixtureRequest, node: RunningNode) -> str:
    """A language whose doomed function is deployed, twice for each way of reuse."""
    runtime, file = request.param
    code = (FUNCTIONS / file).read_text()
    for reuse in REUSES:
        for suffix, limits in LIMITS.items():
            name = f"{runtime}-{reuse}{suffix}"
            assert node.deploy(name, code, runtime=runtime, reuse=reuse, **limits).status == 201
            assert node.call(name).status == 200
    return str(runtime)


@pytest.fixture(params=REUSES)
def doomed(request: pytest.FixtureRequest, language: str) -> str:
    """The name of one that is deployed."""
    return f"{language}-{request.param}"


def end_of(node: RunningNode, name: str, **event: Any) -> tuple[Answer, Verdict]:
    """The reply of a call, and its record."""
    reply = node.call(name, event)
    invocation = reply.headers["x-invocation-id"]
    records = node.ask("GET", f"/functions/{name}/logs?limit=100").json["data"]
    return reply, next(record for record in records if record["id"] == invocation)


def check(reply: Answer, record: Verdict, status: str, limit: str, **more: Any) -> None:
    """Reply and record say the same, and this."""
    told = {"status": record["status"], "limit": record["limit"], **{key: record[key] for key in more}}
    assert told == {"status": status, "limit": limit, **more}, (reply, record)
    assert reply.headers.get("x-stoker-limit", "") == limit
    if reply.status != 200:
        said = reply.json["error"]
        assert said.get("limit", "") == limit
        assert (said.get("exit_code"), said.get("signal")) == (record["exit_code"], record["signal"])


@pytest.mark.parametrize("code", [1, 124, 137, 139, 255])
def test_an_exit_is_told_with_its_code_whatever_that_is(node: RunningNode, doomed: str, code: int) -> None:
    reply, record = end_of(node, doomed, do="exit", code=code)
    assert reply.json["error"]["type"] == "Exited"
    check(reply, record, "crashed", "", exit_code=code, signal=None)


@pytest.mark.parametrize(("by", "number"), [("SIGKILL", 9), ("SIGTERM", 15), ("SIGSEGV", 11)])
def test_a_function_that_kills_itself_is_no_victim_of_the_memory_limit(
    node: RunningNode, doomed: str, by: str, number: int
) -> None:
    reply, record = end_of(node, doomed, do="kill", by=by)
    check(reply, record, "crashed", "", exit_code=None, signal=number)
    assert by in reply.json["error"]["message"]


def test_one_that_eats_its_memory_is_out_of_memory_and_its_peak_is_told(
    node: RunningNode, doomed: str
) -> None:
    reply, record = end_of(node, doomed, do="eat")
    assert reply.status == 507
    check(reply, record, "out_of_memory", "memory")
    if not doomed.endswith("sandbox"):
        assert record["signal"] == 9
    if node.has_walls:
        assert record["memory_peak_bytes"] == pytest.approx(160 * MEBIBYTE, rel=0.05)


def test_a_child_killed_for_memory_is_noted_and_the_function_goes_on(node: RunningNode, doomed: str) -> None:
    if not node.has_walls:
        pytest.skip("the child is looked at only now and then")
    reply, record = end_of(node, doomed, do="child-eats")
    assert reply.json == 9
    check(reply, record, "ok", "memory")
    reply, record = end_of(node, doomed, do="exit", code=137)
    check(reply, record, "crashed", "", exit_code=137, signal=None)


def test_one_that_does_not_answer_has_met_its_wall_time(node: RunningNode, doomed: str) -> None:
    reply, record = end_of(node, f"{doomed}-hasty", do="sleep", seconds=60)
    assert reply.status == 504
    check(reply, record, "timed_out", "wall_time")
    assert record["phases"]["run"] / 1000 >= TIMEOUT_S
    assert (record["cpu_ms"] or 0) < TIMEOUT_S * 1000 / 2


def test_one_that_has_stopped_itself_has_met_its_wall_time(node: RunningNode, doomed: str) -> None:
    reply, record = end_of(node, f"{doomed}-hasty", do="stop")
    check(reply, record, "timed_out", "wall_time")


@pytest.mark.parametrize("word", ["spin", "spin-in-threads", "spin-in-children"])
def test_one_that_computes_too_long_has_met_its_processor_time(
    node: RunningNode, doomed: str, word: str
) -> None:
    reply, record = end_of(node, doomed, do=word)
    assert reply.status == 504
    check(reply, record, "timed_out", "cpu_time")
    assert CPU_S * 1000 <= record["cpu_ms"] < (CPU_S + LATE_S) * 1000 * 1.5
    assert "processor time" in reply.json["error"]["message"]


def test_a_flood_of_output_has_met_its_limit(node: RunningNode, doomed: str) -> None:
    reply, record = end_of(node, doomed, do="flood")
    check(reply, record, "output_too_large", "output")


def test_a_result_too_large_has_met_its_limit(node: RunningNode, doomed: str) -> None:
    reply, record = end_of(node, doomed, do="big", bytes=7 * MEBIBYTE)
    check(reply, record, "output_too_large", "result")


@pytest.mark.parametrize("word", ["fill-and-tidy", "fill"])
def test_one_that_fills_its_scratch_space_has_met_the_disks_limit(
    node: RunningNode, doomed: str, word: str
) -> None:
    reply, record = end_of(node, doomed, do=word)
    if record["status"] == "crashed":
        check(reply, record, "crashed", "disk", signal=25)  # SIGXFSZ, which Python ignores
    else:
        check(reply, record, "function_error", "disk")


def test_a_fork_bomb_has_met_the_limit_of_processes(node: RunningNode, doomed: str) -> None:
    if not node.has_walls:
        pytest.skip("processes are not bounded without walls")
    reply, record = end_of(node, doomed, do="fork-bomb")
    check(reply, record, "function_error", "pids")


def test_ends_at_the_same_time_in_one_sandbox_are_each_told_as_their_own(
    node: RunningNode, language: str
) -> None:
    name = f"{language}-sandbox"
    events = [
        {"do": "exit", "code": 137},
        {"do": "kill", "by": "SIGKILL"},
        {"do": "spin"},
        {"do": "echo", "value": "well"},
    ]
    replies = together(*(lambda event=event: node.call(name, event) for event in events))  # type: ignore[misc]
    told = [
        (reply.json["error"]["type"], reply.json["error"].get("limit"))
        for reply in replies
        if reply.status != 200
    ]
    assert told == [("Exited", None), ("Crashed", None), ("TimedOut", "cpu_time")]
    assert replies[-1].json == "well"


def test_every_reply_tells_what_the_call_used(node: RunningNode, doomed: str) -> None:
    reply, record = end_of(node, doomed, do="work", ms=120)
    check(reply, record, "ok", "")
    used = dict(pair.split("=") for pair in reply.headers["x-stoker-usage"].split(", "))
    assert float(used["cpu_ms"]) == pytest.approx(record["cpu_ms"], abs=0.001)
    assert 100 <= record["cpu_ms"] < 400
    if doomed.endswith(("none", "process")):
        assert int(used["memory_peak_bytes"]) == record["memory_peak_bytes"] > MEBIBYTE


def test_what_a_call_sent_over_the_network_is_its_own(node: RunningNode) -> None:
    if not node.has_walls:
        pytest.skip("without walls there is no network of its own to count in")
    code = """
import socket

def lambda_handler(event):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(event["packets"]):
            out.sendto(b"x" * 1000, ("203.0.113.10", 9))
"""
    deployed = node.deploy("sender", code, network="egress")
    if deployed.status != 201:
        pytest.skip(deployed.json["error"]["message"])
    for packets in (0, 10, 0, 3):
        reply, record = end_of(node, "sender", packets=packets)
        assert reply.status == 200, reply
        assert packets * 1000 <= record["network_out_bytes"] < packets * 1100 + 500
        assert record["network_in_bytes"] is not None
        assert f"network_out_bytes={record['network_out_bytes']}" in reply.headers["x-stoker-usage"]


def test_the_worker_front_says_which_limit_was_met(node: RunningNode) -> None:
    node.package("tidy", {"main.py": (FUNCTIONS / "main.py").read_text()}, {"cpu_time": 0.5})
    reply = node.execute("tidy", {"do": "fill-and-tidy"})
    assert reply.status == 500
    assert set(reply.json) == {"Error", "Message"}
    assert reply.json["Message"].endswith("(it had met its limit of scratch space)")
    assert reply.headers["x-stoker-limit"] == "disk"
    assert "processor time" in node.execute("tidy", {"do": "spin"}).json["Message"]


def test_the_command_line_says_which_limit_was_met_and_what_was_used(node: RunningNode) -> None:
    port = ("--port", str(node.port))
    deployed = node.stoker(
        "deploy", str(FUNCTIONS / "main.py"), "--name", "spinner", "--cpu-time", "200ms", *port
    )
    assert deployed.returncode == 0, deployed
    whole = json.loads(node.stoker("invoke", "spinner", "-d", '{"do": "spin"}', "--json", *port).stdout)
    assert (whole["status"], whole["limit"]) == ("timed_out", "cpu_time")
    assert whole["usage"]["cpu_ms"] >= 200
    assert "met its limit: cpu_time" in node.stoker("logs", "spinner", *port).stdout


def test_a_bad_processor_time_is_refused_at_the_command_line_by_name(node: RunningNode) -> None:
    source, port = str(FUNCTIONS / "main.py"), ("--port", str(node.port))
    for value in ("nan", "-1", "inf", "0"):
        refused = node.stoker("deploy", source, "--name", "never", f"--cpu-time={value}", *port)
        assert refused.returncode != 0
        assert "cpu_time" in refused.stderr


def test_what_the_node_could_not_do_is_in_the_record(node: RunningNode) -> None:
    assert node.deploy("gone", "def lambda_handler(): pass").status == 201
    node.package("broken", {"other.py": ""})
    reply = node.execute("broken")
    record = node.ask("GET", "/functions/broken/logs").json["data"][-1]
    assert record["id"] == reply.headers["x-invocation-id"]
    assert (record["status"], record["error"]["type"]) == ("bad_code", "bad_code")


@pytest.mark.parametrize("value", [0, -1, "-1s", "1e400", 1e300, "soon", "", [1], True])
def test_a_processor_time_that_is_none_is_refused_by_name(node: RunningNode, value: Any) -> None:
    for reply in (
        node.deploy("bad", "def lambda_handler(): pass", cpu_time=value),
        node.ask("PUT", "/functions/gone", json.dumps({"cpu_time": value}).encode()),
    ):
        assert reply.status == 400
        assert "cpu_time" in reply.json["error"]["message"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_processor_time_that_is_no_number_is_refused(node: RunningNode, value: str) -> None:
    body = b'{"name": "bad", "runtime": "python", "code": "cGFzcw==", "cpu_time": %b}' % value.encode()
    assert node.ask("POST", "/functions", body).status == 400


def test_a_processor_time_of_calls_that_cannot_be_told_apart_is_refused(node: RunningNode) -> None:
    reply = node.deploy("bad", "def lambda_handler(): pass", cpu_time=1, concurrency=4)
    assert reply.status == 400
    assert "cpu_time" in reply.json["error"]["message"]


def test_a_package_with_a_bad_processor_time_is_refused_by_key(node: RunningNode) -> None:
    node.package("hurried", {"main.py": "def lambda_handler(): pass"}, {"cpu_time": -1})
    assert "'cpu_time'" in node.execute("hurried").json["Message"]
