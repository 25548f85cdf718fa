from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from doors.asgi import Reply, ask
from doors.canned import ID, CannedNode, Paper
from stoker.doors.functions import Door
from stoker.errors import BuildFailed, NodeError
from stoker.records.model import InvocationRecord
from stoker.types import Phases

WISH = {"name": "hello", "runtime": "python", "code": base64.b64encode(b"PK").decode(), "timeout": "30s"}
HELLO = {
    "id": ID[:-1] + "f",
    "name": "hello",
    "version": "1.0.0",
    "runtime": "python",
    "handler": "main.lambda_handler",
    "digest": "d1",
    "config": {
        "memory_mb": 128,
        "max_concurrency": 10,
        "environment": {},
        "reuse": "process",
        "concurrency": 1,
        "network": "none",
        "egress": [],
        "sandbox": None,
        "zygote": True,
        "interpreter": "forked",
        "timeout": "30s",
        "cpu_time": None,
    },
    "metadata": {},
    "created_at": "2023-11-14T22:13:20.000Z",
    "updated_at": "2023-11-14T22:13:20.250Z",
}


async def request(node: CannedNode, method: str, target: str, body: Any = None) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    return await ask(Door(node).handlers(), method, target, content)


def data(reply: Reply) -> Any:
    assert reply.headers[b"content-type"] == b"application/json"
    return json.loads(reply.body)["data"]


def fault(reply: Reply) -> tuple[int, str, str]:
    assert reply.headers[b"content-type"] == b"application/json"
    said = json.loads(reply.body)
    assert list(said) == ["error"]
    return reply.status, said["error"]["type"], said["error"]["message"]


async def test_a_function_is_created_from_the_wish_and_shown() -> None:
    node = CannedNode()
    reply = await request(node, "POST", "/functions", WISH)
    assert (reply.status, data(reply)) == (201, HELLO)
    assert node.functions.wishes == [{"name": "hello", "runtime": "python", "code": b"PK", "timeout": 30.0}]


async def test_a_second_function_of_that_name_is_a_conflict() -> None:
    node = CannedNode()
    await request(node, "POST", "/functions", WISH)
    reply = await request(node, "POST", "/functions", WISH)
    assert fault(reply) == (409, "already_exists", "there is a function 'hello' already")


async def test_a_wish_larger_than_a_package_may_be_is_refused() -> None:
    node = CannedNode(max_package_mb=1)
    code = base64.b64encode(bytes(2 << 20)).decode()
    status, type_, _ = fault(await request(node, "POST", "/functions", WISH | {"code": code}))
    assert (status, type_) == (413, "payload_too_large")
    assert node.functions.wishes == []


async def test_a_large_package_passes() -> None:
    node = CannedNode()
    code = base64.b64encode(bytes(12 << 20)).decode()
    assert (await request(node, "POST", "/functions", WISH | {"code": code})).status == 201


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON: Input data was truncated"),
        ({"name": "x"}, "code is not given; needed are code, name"),
        (WISH | {"memory_mb": -1}, "memory_mb is -1; it must be a whole number from 1 to 67108864"),
    ],
)
async def test_a_bad_wish_names_what_is_wrong(body: Any, said: str) -> None:
    assert fault(await request(CannedNode(), "POST", "/functions", body)) == (400, "bad_request", said)


async def test_functions_are_listed_a_page_at_a_time() -> None:
    node = CannedNode()
    for name in ("a", "b", "c"):
        await node.functions.create(name, b"")
    reply = await request(node, "GET", "/functions?limit=2&offset=1")
    assert [one["name"] for one in data(reply)] == ["b", "c"]
    assert json.loads(reply.body)["paging"] == {"limit": 2, "offset": 1, "count": 2}
    assert [one["name"] for one in data(await request(node, "GET", "/functions?name=b"))] == ["b"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit is '0'; it must be a whole number from 1 to 1000"),
        ("limit=1001", "limit is '1001'; it must be a whole number from 1 to 1000"),
        ("offset=-1", "offset is '-1'; it must be a whole number from 0 to 1000000000"),
        ("page=2", "unknown parameter 'page'; there are limit, name, offset"),
    ],
)
async def test_a_bad_page_is_refused(query: str, said: str) -> None:
    assert fault(await request(CannedNode(), "GET", f"/functions?{query}")) == (400, "bad_request", said)


async def test_a_function_is_shown_changed_and_deleted_by_name_or_id() -> None:
    node = CannedNode()
    await node.functions.create("hello", b"")
    node.functions.wishes.clear()
    assert data(await request(node, "GET", "/functions/hello")) == HELLO
    assert data(await request(node, "GET", f"/functions/{HELLO['id']}")) == HELLO
    assert data(await request(node, "PUT", "/functions/hello", {"timeout": "60s"})) == HELLO
    assert node.functions.wishes == [{"timeout": 60.0}]
    reply = await request(node, "DELETE", "/functions/hello")
    assert (reply.status, data(reply)) == (200, HELLO)
    reply = await request(node, "GET", "/functions/hello")
    assert fault(reply) == (404, "no_such_function", "there is no function 'hello'")


def record(number: int, **more: Any) -> InvocationRecord:
    return InvocationRecord(
        id=f"{number:032x}",
        function="functions/hello",
        status="ok",
        phases=Phases(run=1.5),
        created_at=1_700_000_000.0,
        finished_at=1_700_000_001.0,
        **more,
    )


async def test_logs_are_the_last_invocations_in_order_and_can_be_followed() -> None:
    node = CannedNode()
    await node.functions.create("hello", b"")
    node.records.function = "functions/hello"
    node.records.kept = [record(number) for number in (5, 4, 3)]
    said = data(await request(node, "GET", "/functions/hello/logs?limit=2"))
    assert [one["id"][-1] for one in said] == ["4", "5"]
    said = data(await request(node, "GET", f"/functions/hello/logs?after={4:032x}"))
    assert [one["id"][-1] for one in said] == ["5"]


async def test_a_log_has_what_the_function_wrote_and_how_it_ended() -> None:
    node = CannedNode()
    await node.functions.create("hello", b"")
    node.records.function = "functions/hello"
    node.records.kept = [
        record(
            1,
            stdout=b"h\xc3\xa9\xff",
            stderr=b"!",
            error_type="ValueError",
            error_message="no",
            stdout_cut=True,
        )
    ]
    (said,) = data(await request(node, "GET", "/functions/hello/logs"))
    assert (said["stdout"], said["stderr"], said["stdout_cut"]) == ("hé\ufffd", "!", True)
    assert said["error"] == {"type": "ValueError", "message": "no", "stack": ""}
    assert said["phases"]["run"] == 1.5
    assert said["finished_at"] == "2023-11-14T22:13:21.000Z"
    assert "result" not in said


async def test_logs_of_a_worker_front_function_are_found_by_its_name() -> None:
    node = CannedNode()
    node.records.function = "front/W1"
    node.records.kept = [record(1)]
    assert len(data(await request(node, "GET", "/functions/W1/logs"))) == 1
    assert fault(await request(node, "GET", "/functions/W2/logs"))[:2] == (404, "no_such_function")


async def test_stats_are_the_rooms_snapshots() -> None:
    said = data(await request(CannedNode(), "GET", "/stats"))
    assert (said["pool"], said["code"], said["draining"]) == ({"busy": 0}, {"size_bytes": 0}, False)
    assert said["calls"]["calls"] == 0


class Failing(CannedNode):
    """Its list of functions fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()

        async def fail(**_: object) -> list[Any]:
            raise error

        self.functions.list = fail  # type: ignore[method-assign,assignment]


async def test_a_node_error_has_its_status_and_an_unforeseen_one_tells_no_secret() -> None:
    failed: NodeError = BuildFailed("pip said no")
    assert fault(await request(Failing(failed), "GET", "/functions")) == (500, "build_failed", "pip said no")
    assert fault(await request(Failing(RuntimeError("password is x")), "GET", "/functions")) == (
        500,
        "internal_error",
        "internal error; the node's log says more",
    )


async def test_health_is_one_constant_until_the_node_drains() -> None:
    node = CannedNode()
    (health,) = [route for route in Door(node).routes() if route.path == "/health"]
    paper = Paper("GET", "/health")
    health.answer(paper)
    assert paper.answer == (200, {b"content-type": b"application/json"}, b'{"data":{"status":"ok"}}')
    node.is_draining = True
    paper = Paper("GET", "/health")
    health.answer(paper)
    assert (paper.answer[0], json.loads(paper.answer[2])["error"]["type"]) == (503, "draining")


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("PATCH", "/functions", 405, "/functions takes GET and POST, not PATCH"),
        ("GET", "/functions/x/call", 405, "/functions/x/call takes POST, not GET"),
        ("POST", "/health", 405, "/health takes GET, not POST"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(
    method: str, path: str, status: int, said: str
) -> None:
    answer = Door(CannedNode()).unknown_path(method, path)
    assert answer is not None
    assert (answer[0], json.loads(answer[1])["error"]) == (
        status,
        {"type": "method_not_allowed", "message": said},
    )


def test_a_path_without_a_functions_name_is_no_path() -> None:
    answer = Door(CannedNode()).unknown_path("POST", "/functions//call")
    assert answer is not None
    assert (answer[0], json.loads(answer[1])["error"]["type"]) == (404, "not_found")


def test_only_paths_of_its_own_are_this_doors_to_answer() -> None:
    door = Door(CannedNode())
    assert (door.unknown_path("GET", "/functions/a/b/c") or (0,))[0] == 404
    assert door.unknown_path("GET", "/execute") is None
    assert door.unknown_path("GET", "/") is None
