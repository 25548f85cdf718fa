from __future__ import annotations

import json
import re
from typing import Any

import pytest

from doors.canned import ID, CannedNode, Paper, outcome
from stoker.doors.worker_front import Door
from stoker.errors import BuildFailed, Draining, NoSuchFunction, PayloadTooLarge, TooBusy
from stoker.types import FunctionError, Invocation, Outcome, Reuse, Source, Status


def send(node: CannedNode, method: str, target: str, body: bytes = b"") -> Paper:
    paper = Paper(method, target, body)
    route = next(route for route in Door(node).routes() if route.path == paper.request.path)
    assert method in route.methods
    route.answer(paper)
    return paper


def asked(node: CannedNode, method: str, target: str, body: bytes = b"") -> Invocation:
    assert send(node, method, target, body).answer[0] == 200
    (invocation,) = node.calls
    return invocation


def meta(end: Outcome, target: str = "/execute?name=W1", **settings: Any) -> dict[str, Any]:
    node = CannedNode(**settings)
    node.end = end
    answer: dict[str, Any] = json.loads(send(node, "GET", target).answer[2])["Meta"]
    return answer


async def test_a_get_calls_the_named_function_with_an_empty_event() -> None:
    invocation = asked(CannedNode(), "GET", "/execute?name=W1")
    assert (invocation.id, invocation.function, invocation.body) == (ID, "front/W1", b"{}")
    assert (invocation.reuse, invocation.keep_s) == (Reuse.NONE, None)


async def test_the_body_of_a_get_is_no_event() -> None:
    assert asked(CannedNode(), "GET", "/execute?name=W1", b'{"a": 1}').body == b"{}"


async def test_the_body_of_a_post_is_the_event_byte_for_byte() -> None:
    body = b' {"a" : [1.0, "\xc3\xa9"]}\n'
    assert asked(CannedNode(), "POST", "/execute?name=W1", body).body == body


@pytest.mark.parametrize("body", [b"", b" \r\n"])
async def test_an_empty_post_is_an_empty_event(body: bytes) -> None:
    assert asked(CannedNode(), "POST", "/execute?name=W1", body).body == b"{}"


async def test_the_deadline_is_the_callers_patience_after_the_first_byte() -> None:
    node = CannedNode(call_patience_s=7.0)
    paper = send(node, "GET", "/execute?name=W1")
    assert node.calls[0].deadline == paper.received + 7.0


async def test_in_rest_mode_sandboxes_are_shared_for_their_life_time() -> None:
    invocation = asked(CannedNode(rest_mode=True, rest_life_s=2.5), "GET", "/execute?name=W1")
    assert (invocation.reuse, invocation.keep_s) == (Reuse.SANDBOX, 2.5)


@pytest.mark.parametrize(
    "query",
    ["name=W1", "name=W1&x=2", "x&name=W1&name=W1", "name=%571", "_=1&name=W1&", "name=W1&name="],
)
async def test_a_name_is_found_among_other_parameters(query: str) -> None:
    assert asked(CannedNode(), "GET", "/execute?" + query).function == "front/W1"


async def test_a_trailing_slash_is_the_same_path() -> None:
    assert asked(CannedNode(), "POST", "/execute/?name=a.b-c_2", b"[]").function == "front/a.b-c_2"


@pytest.mark.parametrize("query", ["", "?", "?name", "?name=", "?Name=W1", "?x=name"])
async def test_a_call_without_a_name_says_so(query: str) -> None:
    status, _, body = send(CannedNode(), "GET", "/execute" + query).answer
    assert (status, body) == (500, b"""{"Error":true,"Message":"param 'name' is not given"}""")


async def test_two_different_names_are_not_guessed_between() -> None:
    node = CannedNode()
    status, _, body = send(node, "GET", "/execute?name=W1&name=W2").answer
    assert (status, json.loads(body)["Message"]) == (400, "param 'name' is given 2 different values")
    assert not node.calls


@pytest.mark.parametrize(
    "name", ["..%2Fx", "%2Fetc", "a%00b", "%22", "%FF", ".", "a b", "é", "x" * 129, "a%0A"]
)
async def test_a_name_no_function_can_have_is_refused_before_the_node(name: str) -> None:
    node = CannedNode()
    status, _, body = send(node, "GET", "/execute?name=" + name).answer
    assert status == 500
    assert json.loads(body)["Message"].startswith("no such function '")
    assert not node.calls


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "Input data was truncated"),
        (b'{"a": tru}', "invalid character (byte 7)"),
        (b"{} x", "trailing characters (byte 4)"),
        (b"a=1", "invalid character (byte 0)"),
        (b"[NaN]", "invalid character (byte 1)"),
    ],
)
async def test_a_body_that_is_not_json_is_refused_before_the_node(body: bytes, why: str) -> None:
    node = CannedNode()
    status, _, reply = send(node, "POST", "/execute?name=W1", body).answer
    assert (status, json.loads(reply)["Message"]) == (400, f"the body is not JSON: {why}")
    assert not node.calls


async def test_a_body_nested_too_deep_is_refused() -> None:
    status, _, reply = send(CannedNode(), "POST", "/execute?name=W1", b"[" * 100_000 + b"]" * 100_000).answer
    assert status == 400
    assert json.loads(reply)["Message"] == "the body is nested too deep"


async def test_a_good_end_is_the_contracts_reply_byte_for_byte() -> None:
    node = CannedNode()
    node.end = outcome(result=b'{"statusCode": 200, "body" : "Hello \xc3\xa9"}', built=True)
    status, headers, body = send(node, "GET", "/execute?name=W1").answer
    assert status == 200
    assert re.fullmatch(
        rb'\{"Result": \{"statusCode": 200, "body" : "Hello \xc3\xa9"\}, '
        rb'"ExecutionTime": \d+, "InternalExecutionTime": 98, '
        rb'"Meta": \{"ImageBuilt": true, "UsingPooledContainer": false, "UsingExistingRestContainer": false, '
        rb'"ContainerName": "hf_w1__9437_98081", "ImageName": "hf_w1"\}\}',
        body,
    )
    assert headers == {
        b"content-type": b"application/json",
        b"server-timing": (
            b"admit;dur=0.010, code;dur=0.002, sandbox;dur=1.500, init;dur=20.250, run;dur=98.700"
        ),
        b"x-invocation-id": ID.encode(),
    }


async def test_a_result_of_nothing_is_null() -> None:
    node = CannedNode()
    node.end = outcome(result=b"")
    assert json.loads(send(node, "GET", "/execute?name=W1").answer[2])["Result"] is None


async def test_the_execution_time_counts_from_the_first_byte() -> None:
    node = CannedNode()
    node.end = None
    paper = send(node, "GET", "/execute?name=W1")
    paper.received -= 3.373
    node.open_calls[0][1](outcome(result=b"1"))
    assert 3373 <= json.loads(paper.answer[2])["ExecutionTime"] < 5000


async def test_meta_tells_a_pooled_sandbox() -> None:
    said = meta(outcome(source=Source.POOLED))
    assert (said["UsingPooledContainer"], said["UsingExistingRestContainer"]) == (True, False)


async def test_meta_tells_a_shared_sandbox_by_the_names_of_rest_mode() -> None:
    first = meta(outcome(sandbox="hf_w1__rest"))
    assert (first["ContainerName"], first["ImageName"]) == ("hf_w1__rest", "hf_w1_rest")
    assert not first["UsingExistingRestContainer"]
    assert meta(outcome(sandbox="hf_w1__rest", source=Source.WARM))["UsingExistingRestContainer"]


async def test_a_function_that_wants_its_own_sandbox_gets_it_in_rest_mode_too() -> None:
    said = meta(outcome(sandbox="hf_w1__1_2"), rest_mode=True)
    assert (said["ContainerName"], said["ImageName"]) == ("hf_w1__1_2", "hf_w1")


async def test_a_mapped_version_is_told_in_one_printable_header() -> None:
    node = CannedNode()
    node.end = outcome(note="'python3.7\r\nX: y' is run by python 3.11.7 ü")
    note = send(node, "GET", "/execute?name=W1").answer[1][b"x-stoker-note"]
    assert note == b"'python3.7 X: y' is run by python 3.11.7"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (outcome(Status.FUNCTION_ERROR, error=FunctionError("ValueError", 'no "é"')), 'ValueError: no "é"'),
        (outcome(Status.FUNCTION_ERROR, error=FunctionError("KeyError", "")), "KeyError"),
        (
            outcome(Status.TIMED_OUT, error=FunctionError("TimedOut", "timed out after 2 s")),
            "timed out after 2 s",
        ),
        (
            outcome(Status.OUT_OF_MEMORY, error=FunctionError("", "out of memory at 128 MB")),
            "out of memory at 128 MB",
        ),
        (outcome(Status.CRASHED, error=FunctionError("Exited", "exited with code 3")), "exited with code 3"),
        (outcome(Status.CRASHED), "the function ended as crashed"),
    ],
)
async def test_a_bad_end_says_what_happened(end: Outcome, message: str) -> None:
    node = CannedNode()
    node.end = end
    status, headers, body = send(node, "GET", "/execute?name=W1").answer
    assert (status, json.loads(body)) == (500, {"Error": True, "Message": message})
    assert b"server-timing" in headers
    assert headers[b"x-invocation-id"] == ID.encode()


async def test_a_refusal_keeps_the_id_and_says_when_to_come_back() -> None:
    node = CannedNode()
    node.refusal = TooBusy("250 calls of 'W1' are inside", retry_after_s=3)
    status, headers, body = send(node, "GET", "/execute?name=W1").answer
    assert (status, headers[b"retry-after"], headers[b"x-invocation-id"]) == (429, b"3", ID.encode())
    assert json.loads(body)["Message"] == "250 calls of 'W1' are inside"
    assert headers[b"server-timing"].startswith(b"admit;dur=0.000, ")
    node.refusal = Draining()
    status, headers, _ = send(node, "GET", "/execute?name=W1").answer
    assert (status, headers[b"retry-after"]) == (503, b"5")
    assert not node.calls


async def test_what_the_listener_refuses_has_this_doors_shape() -> None:
    paper = Paper("POST", "/execute?name=W1")
    Door(CannedNode()).routes()[0].refuse(paper, PayloadTooLarge("the event has 7000000 bytes"))
    assert paper.answer[0] == 413
    assert json.loads(paper.answer[2]) == {"Error": True, "Message": "the event has 7000000 bytes"}


async def test_an_unforeseen_error_tells_no_secret() -> None:
    paper = Paper("POST", "/execute?name=W1")
    Door(CannedNode()).routes()[0].refuse(paper, RuntimeError("password is x"))
    assert paper.answer[0] == 500
    assert json.loads(paper.answer[2])["Message"] == "internal error; the node's log says more"


async def test_a_client_that_leaves_ends_its_call() -> None:
    node = CannedNode()
    node.end = None
    paper = send(node, "GET", "/execute?name=W1")
    assert paper.on_left is not None
    paper.on_left()
    assert node.open_calls[0][0].has_left


async def test_an_error_after_a_wait_tells_where_the_time_went() -> None:
    node = CannedNode()
    node.end = None
    paper = send(node, "GET", "/execute?name=W1")
    call, settle = node.open_calls[0]
    call.phases.code = 12.5
    settle(BuildFailed("pip said no"))
    assert b"code;dur=12.500" in paper.answer[1][b"server-timing"]


async def test_no_such_function_is_the_nodes_word() -> None:
    node = CannedNode()
    node.end = NoSuchFunction("there is no W9.zip")
    assert json.loads(send(node, "GET", "/execute?name=W9").answer[2])["Message"] == "there is no W9.zip"


async def test_an_unknown_path_has_the_failure_shape() -> None:
    status, body = Door(CannedNode()).unknown_path("GET", "/nothing") or (0, b"")
    assert (status, json.loads(body)["Error"]) == (404, True)
    status, body = Door(CannedNode()).unknown_path("HEAD", "/execute/") or (0, b"")
    assert (status, json.loads(body)["Message"]) == (405, "/execute/ takes GET and POST, not HEAD")
