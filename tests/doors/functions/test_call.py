from __future__ import annotations

import asyncio
import json

import pytest

from doors.canned import ID, CannedNode, Paper, outcome
from stoker.doors.functions.call import Caller
from stoker.errors import NoSuchFunction, PayloadTooLarge, TooBusy
from stoker.types import FunctionError, LimitHit, Outcome, Reuse, Status, Usage

TARGET = "/functions/hello/call"


def send(node: CannedNode, body: bytes = b"", target: str = TARGET) -> Paper:
    paper = Paper("POST", target, body)
    Caller(node).answer(paper)
    return paper


async def test_the_body_goes_to_the_function_as_it_is() -> None:
    node = CannedNode(call_patience_s=7.0)
    paper = send(node, b"not even json")
    (invocation,) = node.calls
    assert (invocation.id, invocation.function, invocation.body) == (ID, "functions/hello", b"not even json")
    assert (invocation.reuse, invocation.keep_s) == (Reuse.PROCESS, None)
    assert invocation.deadline == paper.received + 7.0


async def test_no_body_is_an_empty_event() -> None:
    node = CannedNode()
    send(node)
    assert node.calls[0].body == b"{}"


async def test_the_result_is_the_reply_byte_for_byte() -> None:
    node = CannedNode()
    node.end = outcome(result=b'{"a" : 1.0}', note="'python3.7' is run by python 3.11.7")
    assert send(node).answer == (
        200,
        {
            b"content-type": b"application/json",
            b"server-timing": (
                b"admit;dur=0.010, code;dur=0.002, sandbox;dur=1.500, init;dur=20.250, run;dur=98.700"
            ),
            b"x-invocation-id": ID.encode(),
            b"x-stoker-note": b"'python3.7' is run by python 3.11.7",
        },
        b'{"a" : 1.0}',
    )


async def test_the_reply_tells_what_was_used_and_which_limit_was_met() -> None:
    node = CannedNode()
    node.end = outcome(usage=Usage(cpu_ms=1.25, memory_peak_bytes=9_437_184), limit=LimitHit.MEMORY)
    status, headers, _ = send(node).answer
    assert status == 200
    assert headers[b"x-stoker-usage"] == b"cpu_ms=1.250, memory_peak_bytes=9437184"
    assert headers[b"x-stoker-limit"] == b"memory"


@pytest.mark.parametrize(
    ("used", "said"),
    [
        (Usage(cpu_ms=0.5), b"cpu_ms=0.500"),
        (Usage(memory_peak_bytes=7), b"memory_peak_bytes=7"),
        (
            Usage(cpu_ms=2.0, memory_peak_bytes=3, network_in_bytes=0, network_out_bytes=10**12),
            b"cpu_ms=2.000, memory_peak_bytes=3, network_in_bytes=0, network_out_bytes=1000000000000",
        ),
    ],
)
async def test_only_what_was_measured_is_told(used: Usage, said: bytes) -> None:
    node = CannedNode()
    node.end = outcome(usage=used)
    assert send(node).answer[1][b"x-stoker-usage"] == said


async def test_a_failure_tells_its_limit_and_how_the_process_ended() -> None:
    node = CannedNode()
    error = FunctionError("Crashed", "the function was killed by SIGXFSZ")
    node.end = outcome(Status.CRASHED, error=error, limit=LimitHit.DISK, signal=25)
    _, headers, body = send(node).answer
    assert json.loads(body)["error"] == {
        "type": "Crashed",
        "message": "the function was killed by SIGXFSZ",
        "limit": "disk",
        "signal": 25,
    }
    assert headers[b"x-stoker-limit"] == b"disk"


async def test_a_result_of_nothing_is_null() -> None:
    node = CannedNode()
    node.end = outcome()
    assert send(node).answer[2] == b"null"


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        (
            outcome(Status.FUNCTION_ERROR, error=FunctionError("ValueError", "no", "Traceback …")),
            500,
            {"type": "ValueError", "message": "no", "stack": "Traceback …"},
        ),
        (
            outcome(Status.FUNCTION_ERROR, error=FunctionError("BadEvent", "the event is not JSON")),
            400,
            {"type": "BadEvent", "message": "the event is not JSON"},
        ),
        (
            outcome(Status.TIMED_OUT, error=FunctionError("TimedOut", "no answer within 2 s")),
            504,
            {"type": "TimedOut", "message": "no answer within 2 s"},
        ),
        (
            outcome(Status.OUT_OF_MEMORY, error=FunctionError("OutOfMemory", "more than 128 MB")),
            507,
            {"type": "OutOfMemory", "message": "more than 128 MB"},
        ),
        (
            outcome(Status.OUTPUT_TOO_LARGE, error=FunctionError("ResultTooLarge", "7 MB")),
            500,
            {"type": "ResultTooLarge", "message": "7 MB"},
        ),
        (outcome(Status.CRASHED), 500, {"type": "Crashed", "message": "the function ended as crashed"}),
        (outcome(Status.CANCELLED), 503, {"type": "Cancelled", "message": "the function ended as cancelled"}),
    ],
)
async def test_a_bad_end_has_its_own_status_and_type(
    end: Outcome, status: int, error: dict[str, str]
) -> None:
    node = CannedNode()
    node.end = end
    answer = send(node).answer
    assert (answer[0], json.loads(answer[2])) == (status, {"error": error})
    assert answer[1][b"x-invocation-id"] == ID.encode()


async def test_a_full_line_says_when_to_come_back() -> None:
    node = CannedNode()
    node.refusal = TooBusy("full", retry_after_s=2)
    status, headers, body = send(node).answer
    assert (status, headers[b"retry-after"]) == (429, b"2")
    assert not node.calls
    assert json.loads(body) == {"error": {"type": "too_busy", "message": "full"}}


async def test_an_unknown_function_is_not_found() -> None:
    node = CannedNode()
    node.end = NoSuchFunction("there is no function 'hello'")
    status, headers, body = send(node).answer
    assert (status, headers[b"x-invocation-id"]) == (404, ID.encode())
    assert json.loads(body)["error"]["type"] == "no_such_function"


async def test_what_the_listener_refuses_has_this_doors_shape() -> None:
    paper = Paper("POST", TARGET)
    Caller(CannedNode()).refuse(paper, PayloadTooLarge("the event has 7000000 bytes"))
    assert (paper.answer[0], json.loads(paper.answer[2])) == (
        413,
        {"error": {"type": "payload_too_large", "message": "the event has 7000000 bytes"}},
    )
    paper = Paper("POST", TARGET)
    Caller(CannedNode()).refuse(paper, RuntimeError("password is x"))
    assert (paper.answer[0], json.loads(paper.answer[2])) == (
        500,
        {"error": {"type": "internal_error", "message": "internal error; the node's log says more"}},
    )


async def test_an_id_is_as_good_as_a_name() -> None:
    node = CannedNode()
    record = await node.functions.create("hello", b"")
    paper = send(node, target=f"/functions/{record.id}/call")
    assert paper.on_left is not None
    await asyncio.sleep(0)
    assert node.calls[0].function == "functions/hello"
    assert paper.answer[0] == 200


async def test_an_id_of_nobody_is_not_found() -> None:
    paper = send(CannedNode(), target=f"/functions/{ID}/call")
    await asyncio.sleep(0)
    assert paper.answer[0] == 404
    assert json.loads(paper.answer[2])["error"]["type"] == "no_such_function"


async def test_a_client_that_leaves_ends_its_call() -> None:
    node = CannedNode()
    node.end = None
    paper = send(node)
    assert paper.on_left is not None
    paper.on_left()
    assert node.open_calls[0][0].has_left
