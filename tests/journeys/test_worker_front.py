"""The Worker Front contract, spoken to a whole node: modes, pools, knobs, packages."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from journeys.running import HELLO, Answer, RunningNode, running, together

OWN_NAME = re.compile(r"hf_[a-z0-9_.-]+__\d{1,5}_\d+")
DEFAULTS = "using_rest_mode=false&rest_container_life_time=10&container_pool_limit=-1&container_pool_num=6"

TRACES = """
import os
calls = 0
def lambda_handler(event, context):
    global calls
    calls += 1
    return {"calls": calls, "pid": os.getpid()}
"""

# Two calls that can only end together: the first to come waits for the other one.
MEETS = """
import socket
def lambda_handler(event, context):
    name = "\\0" + event
    with socket.socket(socket.AF_UNIX) as mine:
        try:
            mine.bind(name)
        except OSError:
            while mine.connect_ex(name):
                pass
            return "second"
        mine.listen()
        mine.accept()[0].close()
        return "first"
"""

NODE = 'exports.handle = async (event) => ({statusCode: 200, body: "Hello " + (event.name || "nobody")});'


@pytest.fixture(autouse=True)
def _as_it_was(node: RunningNode) -> Iterator[None]:
    yield
    assert node.ask("GET", f"/configure?user_code_size_limit=-1&{DEFAULTS}").status == 200
    assert node.ask("GET", "/clear?reset_images=true").status == 200


def result(answer: Answer) -> Any:
    assert answer.status == 200, answer
    return answer.json["Result"]


def meta(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    said: dict[str, Any] = answer.json["Meta"]
    return said


def test_a_reply_has_the_contracts_shape(node: RunningNode) -> None:
    node.package("W1", {"main.py": HELLO})
    answer = node.execute("W1")
    assert answer.headers["content-type"] == "application/json"
    said = answer.json
    assert list(said) == ["Result", "ExecutionTime", "InternalExecutionTime", "Meta"]
    assert said["Result"] == {"statusCode": 200, "body": "Hello World", "event": {}}
    assert type(said["ExecutionTime"]) is int
    assert type(said["InternalExecutionTime"]) is int
    assert said["ExecutionTime"] >= said["InternalExecutionTime"]
    assert list(said["Meta"]) == [
        "ImageBuilt",
        "UsingPooledContainer",
        "UsingExistingRestContainer",
        "ContainerName",
        "ImageName",
    ]
    assert said["Meta"]["ImageName"] == "hf_w1"
    assert OWN_NAME.fullmatch(said["Meta"]["ContainerName"])
    assert said["Meta"]["ContainerName"].startswith("hf_w1__")


def test_every_reply_tells_its_phases_and_its_id(node: RunningNode) -> None:
    answer = node.execute("hello")
    assert re.fullmatch(
        r"admit;dur=[\d.]+, code;dur=[\d.]+, sandbox;dur=[\d.]+, init;dur=[\d.]+, run;dur=[\d.]+",
        answer.headers["server-timing"],
    )
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-invocation-id"])


def test_the_body_of_a_post_reaches_the_function(node: RunningNode) -> None:
    for event in ({"ключ": ["значение", 1.5, None]}, [], "text", 7, None):
        posted = node.ask("POST", "/execute?name=hello", json.dumps(event).encode())
        assert result(posted)["event"] == event


def test_only_the_first_call_builds(node: RunningNode) -> None:
    node.package("W2", {"main.py": HELLO})
    assert [meta(node.execute("W2"))["ImageBuilt"] for _ in range(3)] == [True, False, False]


def test_every_call_has_a_sandbox_of_its_own(node: RunningNode) -> None:
    node.package("traces", {"main.py": TRACES})
    answers = [node.execute("traces") for _ in range(3)]
    assert [result(answer)["calls"] for answer in answers] == [1, 1, 1]
    assert len({meta(answer)["ContainerName"] for answer in answers}) == 3
    assert not any(meta(answer)["UsingExistingRestContainer"] for answer in answers)
    node.wait_for_pool(lambda pool: not pool["busy"] + pool["idle"] + pool["dying"] + pool["starting"])


def test_pools_have_sandboxes_started_and_waiting(node: RunningNode) -> None:
    node.package("traces", {"main.py": TRACES})
    assert node.ask("GET", "/configure?container_pool_limit=1&container_pool_num=2").status == 200
    assert not meta(node.execute("traces"))["UsingPooledContainer"]
    for _ in range(3):
        node.wait_for_pool(lambda pool: pool["idle"] == 2 and not pool["starting"])
        answer = node.execute("traces")
        assert meta(answer)["UsingPooledContainer"]
        assert result(answer)["calls"] == 1
    assert node.ask("GET", "/configure?container_pool_limit=-1").status == 200
    node.wait_for_pool(lambda pool: pool["idle"] == 0 and not pool["starting"])
    assert not meta(node.execute("traces"))["UsingPooledContainer"]


def test_pools_follow_the_functions_used_last(node: RunningNode) -> None:
    for name in ("P1", "P2"):
        node.package(name, {"main.py": HELLO})
    assert node.ask("GET", "/configure?container_pool_limit=1&container_pool_num=1").status == 200
    node.execute("P1")
    node.wait_for_pool(lambda pool: pool["idle"] == 1 and not pool["starting"])
    node.execute("P2")
    node.wait_for_pool(lambda pool: pool["idle"] == 1 and not pool["starting"] + pool["dying"])
    assert meta(node.execute("P2"))["UsingPooledContainer"]


def test_rest_mode_shares_a_sandbox_and_gives_each_call_a_process(node: RunningNode) -> None:
    node.package("traces", {"main.py": TRACES})
    assert node.ask("GET", "/configure?using_rest_mode=true").json["State"]["UsingRestMode"] is True
    answers = [node.execute("traces") for _ in range(3)]
    assert {(meta(one)["ContainerName"], meta(one)["ImageName"]) for one in answers} == {
        ("hf_traces__rest", "hf_traces_rest")
    }
    assert [meta(one)["UsingExistingRestContainer"] for one in answers] == [False, True, True]
    assert [result(one)["calls"] for one in answers] == [1, 1, 1]
    assert len({result(one)["pid"] for one in answers}) == 3


def test_in_rest_mode_calls_run_at_the_same_time_in_one_sandbox(node: RunningNode) -> None:
    node.package("meets", {"main.py": MEETS}, {"timeout": 20})
    node.ask("GET", "/configure?using_rest_mode=true")
    for place in (str(uuid.uuid4()), str(uuid.uuid4())):
        answers = together(
            lambda place=place: node.execute("meets", place), lambda place=place: node.execute("meets", place)
        )
        assert sorted(result(answer) for answer in answers) == ["first", "second"]
    node.wait_for_pool(lambda pool: pool["busy"] == 0 and pool["idle"] == 1)


def test_an_idle_shared_sandbox_ends_after_its_life_time(node: RunningNode) -> None:
    node.ask("GET", "/configure?using_rest_mode=true&rest_container_life_time=0.3")
    assert not meta(node.execute("hello"))["UsingExistingRestContainer"]
    node.wait_for_pool(lambda pool: pool["idle"] == 0)
    assert not meta(node.execute("hello"))["UsingExistingRestContainer"]


def test_turning_rest_mode_off_takes_effect_for_the_next_call(node: RunningNode) -> None:
    node.ask("GET", "/configure?using_rest_mode=true&rest_container_life_time=1")
    node.execute("hello")
    node.ask("GET", "/configure?using_rest_mode=false")
    said = meta(node.execute("hello"))
    assert OWN_NAME.fullmatch(said["ContainerName"])
    assert not said["UsingExistingRestContainer"]
    node.wait_for_pool(lambda pool: pool["idle"] == 0)


def test_a_functions_own_word_on_reuse_is_the_last(node: RunningNode) -> None:
    node.package("alone", {"main.py": TRACES}, {"reuse": "none"})
    node.package("warm", {"main.py": TRACES}, {"reuse": "process"})
    node.package("shared", {"main.py": TRACES}, {"reuse": "sandbox"})
    shared = [node.execute("shared") for _ in range(2)]
    assert [meta(one)["UsingExistingRestContainer"] for one in shared] == [False, True]
    assert meta(shared[1])["ContainerName"] == "hf_shared__rest"
    warm = [node.execute("warm") for _ in range(2)]
    assert [result(one)["calls"] for one in warm] == [1, 2]
    assert len({meta(one)["ContainerName"] for one in warm}) == 1
    node.ask("GET", "/configure?using_rest_mode=true")
    alone = [node.execute("alone") for _ in range(2)]
    assert [result(one)["calls"] for one in alone] == [1, 1]
    assert OWN_NAME.fullmatch(meta(alone[1])["ContainerName"])


def test_clear_removes_sandboxes_and_keeps_the_code(node: RunningNode) -> None:
    node.ask("GET", "/configure?using_rest_mode=true&rest_container_life_time=600")
    node.execute("hello")
    answer = node.ask("GET", "/clear")
    assert (answer.status, answer.text) == (200, "done; reset_images=false")
    assert answer.headers["content-type"].startswith("text/plain")
    node.wait_for_pool(lambda pool: not pool["idle"] + pool["busy"] + pool["dying"])
    said = meta(node.execute("hello"))
    assert (said["UsingExistingRestContainer"], said["ImageBuilt"]) == (False, False)


def test_clear_with_images_forgets_the_code_too(node: RunningNode) -> None:
    node.package("changes", {"main.py": HELLO})
    node.execute("changes")
    node.package("changes", {"main.py": HELLO.replace("World", "again")})
    assert node.ask("GET", "/clear?reset_images=true").text == "done; reset_images=true"
    answer = node.execute("changes")
    assert (result(answer)["body"], meta(answer)["ImageBuilt"]) == ("Hello again", True)


def test_clear_lets_a_running_call_finish(node: RunningNode) -> None:
    nap = "import time\ndef lambda_handler(event, context):\n    time.sleep(1)\n    return 'rested'\n"
    node.package("naps", {"main.py": nap})

    def clear_meanwhile() -> Answer:
        node.wait_for_pool(lambda pool: pool["busy"] > 0)
        return node.ask("GET", "/clear?reset_images=true")

    answer, cleared = together(lambda: node.execute("naps"), clear_meanwhile)
    assert cleared.text == "done; reset_images=true"
    assert result(answer) == "rested"
    node.wait_for_pool(lambda pool: not pool["busy"] + pool["idle"] + pool["dying"])


def test_prepare_builds_what_the_list_names(node: RunningNode) -> None:
    for name in ("L1", "L2"):
        node.package(name, {"main.py": HELLO})
    (node.packages / "lists.txt").write_text("L1\nL2\n\n")
    answer = node.ask("GET", "/prepare")
    assert (answer.status, answer.text) == (200, "done")
    assert not meta(node.execute("L1"))["ImageBuilt"]
    (node.packages / "lists.txt").write_text("L1\nL9\n")
    answer = node.ask("GET", "/prepare")
    assert answer.status == 500
    assert answer.text.startswith("L9: ")
    assert "\n" not in answer.text
    (node.packages / "lists.txt").unlink()
    assert "lists.txt" in node.ask("GET", "/prepare").json["Message"]


def test_a_version_that_is_not_here_is_mapped_and_told(node: RunningNode) -> None:
    node.package("old", {"main.py": HELLO}, {"environment": "python3.7"})
    answer = node.execute("old")
    assert result(answer)["statusCode"] == 200
    assert "python3.7" in answer.headers["x-stoker-note"]


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
def test_a_node_package_is_served_too(node: RunningNode) -> None:
    node.package("N1", {"index.js": NODE}, {"environment": "nodejs12"})
    answer = node.execute("N1", {"name": "Stoker"})
    assert result(answer) == {"statusCode": 200, "body": "Hello Stoker"}
    assert meta(answer)["ImageName"] == "hf_n1"


def test_what_a_function_prints_is_no_result(node: RunningNode) -> None:
    noise = (
        'def lambda_handler(event, context):\n    print("{\\"Result\\": 1}", flush=True)\n    return "mine"\n'
    )
    node.package("prints", {"main.py": noise})
    assert result(node.execute("prints")) == "mine"


def test_code_over_the_limit_goes_least_recently_used_first(node: RunningNode) -> None:
    for name in ("C1", "C2"):
        node.package(name, {"main.py": HELLO})
        node.execute(name)
    node.ask("GET", "/configure?user_code_size_limit=1")
    node.execute("C1")
    assert meta(node.execute("C2"))["ImageBuilt"]
    node.ask("GET", "/configure?user_code_size_limit=-1")
    node.execute("C1")
    node.execute("C2")
    assert not meta(node.execute("C1"))["ImageBuilt"]


def test_twenty_calls_at_once_over_four_functions_are_each_answered_rightly(node: RunningNode) -> None:
    names = [f"M{number}" for number in range(4)]
    for name in names:
        node.package(name, {"main.py": HELLO.replace("World", name)})
    asks = [lambda n=n: (n, node.execute(names[n % 4], n)) for n in range(20)]
    for number, answer in together(*asks):
        assert result(answer)["event"] == number
        assert result(answer)["body"] == f"Hello {names[number % 4]}"


def test_the_environment_sets_the_first_state() -> None:
    environment = {
        "USER_CODE_SIZE_LIMIT": "1000000",
        "CONTAINER_POOL_LIMIT": "2",
        "CONTAINER_POOL_NUM": "1",
        "USING_REST_MODE": "true",
        "REST_CONTAINER_LIFE_TIME": "20",
    }
    with running("process", **environment) as node:
        assert node.ask("GET", "/configure").json == {
            "Message": "nothing changed",
            "State": {
                "UserCodeSizeLimit": 1_000_000,
                "ContainerPoolLimit": 2,
                "ContainerPoolNum": 1,
                "UsingRestMode": True,
                "RestContainerLifeTime": 20,
            },
        }
        node.package("W1", {"main.py": HELLO})
        assert meta(node.execute("W1"))["ContainerName"] == "hf_w1__rest"


def test_a_daemon_leaves_its_log_and_takes_its_pid_file_along() -> None:
    with running("process") as node:
        assert node.ask("GET", "/health").status == 200
        assert (node.folder / "daemon.log").exists()
        assert node.pid > 1
        folder = node.folder
        node.stop()
        assert not (folder / "daemon.pid").exists()
        node.start()
        assert node.ask("GET", "/health").status == 200
