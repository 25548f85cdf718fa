"""The first slice of the Functions API, spoken to a whole node."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from journeys.running import HELLO, Answer, RunningNode, running, together, zipped

COUNTS = """
calls = 0
def lambda_handler(event, context):
    global calls
    calls += 1
    print("call", calls)
    return calls
"""


def data(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer
    return answer.json["data"]


def fault(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["type"]


def put(node: RunningNode, name: str, **fields: object) -> Answer:
    return node.ask("PUT", f"/functions/{name}", json.dumps(fields).encode())


def test_a_function_lives_from_its_deployment_to_its_deletion(node: RunningNode) -> None:
    made = data(node.deploy("life", HELLO, timeout="5s", metadata={"team": "a"}), 201)
    assert (made["name"], made["config"]["timeout"], made["metadata"]) == ("life", "5s", {"team": "a"})
    assert (
        data(node.ask("GET", "/functions/life")) == data(node.ask("GET", f"/functions/{made['id']}")) == made
    )
    assert [one["name"] for one in data(node.ask("GET", "/functions?name=life"))] == ["life"]
    answer = node.call("life", {"v": 1})
    assert answer.json == {"statusCode": 200, "body": "Hello World", "event": {"v": 1}}
    assert answer.headers["content-type"] == "application/json"
    assert "run;dur=" in answer.headers["server-timing"]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-invocation-id"])
    assert node.call(made["id"], {"v": 2}).json["event"] == {"v": 2}
    assert data(node.ask("DELETE", f"/functions/{made['id']}")) == made
    for gone in (node.call("life"), node.call(made["id"]), node.ask("GET", "/functions/life")):
        assert fault(gone) == (404, "no_such_function")


def test_a_warm_process_serves_one_call_after_another(node: RunningNode) -> None:
    data(node.deploy("warm", COUNTS), 201)
    assert [node.call("warm").json for _ in range(3)] == [1, 2, 3]
    assert node.ask("DELETE", "/functions/warm").status == 200


def test_a_change_is_in_force_for_the_next_call(node: RunningNode) -> None:
    data(
        node.deploy("changes", "import time\ndef lambda_handler(e, c):\n    time.sleep(e)\n", timeout="30s"),
        201,
    )
    assert data(put(node, "changes", timeout="1s"))["config"]["timeout"] == "1s"
    assert fault(node.call("changes", 20)) == (504, "TimedOut")
    assert fault(put(node, "changes", timeout="soon")) == (400, "bad_request")
    assert fault(put(node, "nobody", timeout="1s")) == (404, "no_such_function")
    assert node.ask("DELETE", "/functions/changes").status == 200


def test_a_package_describes_itself_as_far_as_the_wish_does_not(node: RunningNode) -> None:
    package = zipped("any", {"main.py": COUNTS}, {"environment": "python3", "timeout": "7s", "reuse": "none"})
    config = data(node.deploy("itself", package, timeout="8s"), 201)["config"]
    assert (config["timeout"], config["reuse"]) == ("8s", "none")
    assert [node.call("itself").json for _ in range(2)] == [1, 1]
    assert node.ask("DELETE", "/functions/itself").status == 200


def test_what_a_function_wrote_is_in_its_logs(node: RunningNode) -> None:
    data(node.deploy("writes", COUNTS), 201)
    ids = [node.call("writes").headers["x-invocation-id"] for _ in range(3)]
    said = data(node.ask("GET", "/functions/writes/logs"))
    assert [(one["id"], one["status"], one["stdout"]) for one in said] == [
        (ids[0], "ok", "call 1\n"),
        (ids[1], "ok", "call 2\n"),
        (ids[2], "ok", "call 3\n"),
    ]
    assert [one["id"] for one in data(node.ask("GET", "/functions/writes/logs?limit=1"))] == ids[2:]
    assert [one["id"] for one in data(node.ask("GET", f"/functions/writes/logs?after={ids[0]}"))] == ids[1:]
    assert data(node.ask("GET", f"/functions/writes/logs?after={ids[2]}")) == []
    assert node.ask("DELETE", "/functions/writes").status == 200


def test_logs_of_worker_front_functions_are_found_by_name(node: RunningNode) -> None:
    node.package("F1", {"main.py": COUNTS})
    invocation = node.execute("F1").headers["x-invocation-id"]
    assert [one["id"] for one in data(node.ask("GET", "/functions/F1/logs"))] == [invocation]


def test_a_full_line_is_told_when_to_come_back_at_both_doors() -> None:
    nap = "import time\ndef lambda_handler(event, context):\n    time.sleep(1)\n    return 1\n"
    with running("process", STOKER_MAX_CALLS_PER_FUNCTION="2") as node:
        data(node.deploy("naps", nap), 201)
        node.package("naps", {"main.py": nap})
        assert node.execute("naps").status == 200
        for call in (node.call, node.execute):
            answers = together(*[lambda call=call: call("naps")] * 6)
            refused = [answer for answer in answers if answer.status != 200]
            assert 0 < len(refused) <= 4
            assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(429, "1")}
            assert all("2 calls of " in answer.text for answer in refused)


def test_health_and_stats_answer_without_a_sandbox(node: RunningNode) -> None:
    assert node.ask("GET", "/health").json == {"data": {"status": "ok"}}
    assert node.ask("HEAD", "/health").status == 200
    said = data(node.ask("GET", "/stats"))
    assert {"node", "draining", "calls", "pool", "code"} <= set(said)


def test_a_node_says_it_is_weaker_when_it_is(node: RunningNode) -> None:
    """Once it runs, a node that root has started is nobody: what it says must be of how it was started."""
    is_weaker = "no function can have the network policy 'egress'" in node.log
    assert is_weaker == (node.has_walls and os.geteuid() != 0)
