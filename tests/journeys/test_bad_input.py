"""What strangers send: each gets a clear answer, and the node stays healthy and clean."""

from __future__ import annotations

import io
import json
import re
import socket
import stat
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import pytest

from journeys.running import HELLO, PYTHON, Answer, RunningNode, together, zipped

TOO_LARGE = 10 * 1024 * 1024


pytestmark = pytest.mark.usefixtures("healthy_after")


def failure(answer: Answer) -> str:
    """The message of a Worker Front failure."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["Error", "Message"]
    assert answer.json["Error"] is True
    message: str = answer.json["Message"]
    return message


def error(answer: Answer) -> tuple[int, str, str]:
    """Status, type and message of a Functions API error."""
    said = answer.json["error"]
    assert set(said) <= {"type", "message", "stack", "limit", "exit_code", "signal"}
    return answer.status, said["type"], said["message"]


def is_said(said: str, text: str) -> bool:
    """Whether the text is as it is said; `…` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, said.split("…"))), text, re.DOTALL) is not None


class Bad(NamedTuple):
    """A function that goes wrong, and what is said of it."""

    code: str
    status: int
    """At the Functions door; at the Worker Front it is always 500."""
    type: str
    """The Worker Front puts it before the message when it is the type of an exception."""
    message: str
    timeout: float = 10
    needs: str = ""
    """The backend that alone can hold it."""


HEAD = "import os, sys, time\ndef lambda_handler(event, context):\n    "
NO_EXCEPTIONS = ("Exited", "Crashed", "TimedOut", "OutOfMemory", "OutputTooLarge", "ResultTooLarge")
SLOW = "the function did not answer within its limit of 1 s"
EXITED = "the function exited with code {} before it answered"
KILLED = "the function was killed by "
NO_JSON = "the handler's result is not JSON: "
BAD = {
    "raises": Bad(HEAD + "raise ValueError('no such colour: ü')", 500, "ValueError", "no such colour: ü"),
    "raises_nothing": Bad(HEAD + "raise KeyError", 500, "KeyError", ""),
    "exits": Bad(HEAD + "sys.exit(3)", 500, "Exited", "the function exited with code 3 before it answered"),
    "exits_well": Bad(
        HEAD + "os._exit(0)", 500, "Exited", "the function exited with code 0 before it answered"
    ),
    "aborts": Bad(HEAD + "os.abort()", 500, "Crashed", "the function was killed by SIGABRT"),
    "kills_itself": Bad(
        HEAD + "os.kill(os.getpid(), 9)", 500, "Crashed", "the function was killed by SIGKILL"
    ),
    "loops": Bad(HEAD + "while True: pass", 504, "TimedOut", SLOW, timeout=1),
    "sleeps": Bad(HEAD + "time.sleep(1e6)", 504, "TimedOut", SLOW, timeout=1),
    "eats": Bad(
        HEAD + "return len(bytearray(os.urandom(1)) * (300 << 20))",
        507,
        "OutOfMemory",
        "the function used more than its 128 MB of memory",
        needs="lean",
    ),
    "floods": Bad(
        HEAD + "for _ in range(100): print('x' * (1 << 20), flush=True)",
        500,
        "OutputTooLarge",
        "more than 16777216 bytes written to stdout or stderr",
    ),
    "answers_no_json": Bad(
        HEAD + "return {1, 2}",
        500,
        "BadResult",
        NO_JSON + "TypeError: Object of type set is not JSON serializable",
    ),
    "answers_nan": Bad(HEAD + "return float('nan')", 500, "BadResult", NO_JSON + "ValueError: …"),
    "answers_too_much": Bad(
        HEAD + "return 'x' * (7 << 20)",
        500,
        "ResultTooLarge",
        "the result has 7340034 bytes, more than the 6291456 allowed",
    ),
    "imports_nothing": Bad(
        "import no_such_module\n" + HELLO,
        500,
        "ImportFailed",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "is_no_python": Bad(
        "def lambda_handler(:\n    pass\n",
        500,
        "ImportFailed",
        "SyntaxError: invalid syntax (main.py, line 1)",
    ),
    "raises_at_import": Bad("1 / 0\n" + HELLO, 500, "ImportFailed", "ZeroDivisionError: division by zero"),
    "exits_at_import": Bad("import sys; sys.exit(4)\n" + HELLO, 500, "ImportFailed", "SystemExit: 4"),
    "has_no_handler": Bad(
        "def other(event, context): pass\n",
        500,
        "NoSuchHandler",
        "no function 'lambda_handler' in 'main'; there is other",
    ),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest, sandbox: str) -> tuple[str, Bad]:
    case = BAD[request.param]
    if case.needs and case.needs != sandbox:
        pytest.skip(f"{sandbox} cannot hold this; see SECURITY.md")
    return request.param, case


def test_a_bad_function_is_explained_by_the_worker_front(node: RunningNode, bad: tuple[str, Bad]) -> None:
    name, case = bad
    node.package(name, {"main.py": case.code}, {"timeout": case.timeout})
    answer = node.execute(name)
    parts = [case.message] if case.type in NO_EXCEPTIONS else [case.type, case.message]
    assert answer.status == 500
    assert is_said(": ".join(part for part in parts if part), failure(answer)), failure(answer)
    assert "run;dur=" in answer.headers["server-timing"]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-invocation-id"])


def test_a_bad_function_is_explained_by_the_functions_door(node: RunningNode, bad: tuple[str, Bad]) -> None:
    name, case = bad
    deployed = node.deploy(name, case.code, timeout=case.timeout)
    assert deployed.status == 201, deployed
    status, type_, message = error(node.call(name))
    assert (status, type_) == (case.status, case.type)
    assert is_said(case.message or "the function ended as function_error", message), message
    assert node.ask("DELETE", f"/functions/{name}").status == 200


# Packages


def archive(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return target.getvalue()


def bomb() -> bytes:
    """A gigabyte of nothing, in a megabyte. Made when it is wanted: it takes seconds."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("pack/config.json", CONFIG)
        with packed.open("pack/zeros", "w") as zeros:
            for _ in range(1024):
                zeros.write(bytes(1 << 20))
    return target.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


CONFIG = b'{"environment": "python"}'
GOOD = zipped("pack", {"main.py": HELLO}, PYTHON)


def described(config: object) -> bytes:
    return zipped(
        "pack", {"main.py": HELLO, "config.json": config if isinstance(config, str) else json.dumps(config)}
    )


DEPENDENCY = "stoker-has-no-such-dependency==1.0"
PACKAGES: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "no zip": (b"this is no zip at all", "front/pack: the package is neither a zip nor a tar.gz"),
    "cut zip": (GOOD[: len(GOOD) // 2], "front/pack: the archive is broken: File is not a zip file"),
    "damaged zip": (GOOD[:60] + bytes(40) + GOOD[100:], "front/pack: the archive is broken: …"),
    "empty file": (b"", "the package …/packages/pack.zip is empty"),
    "empty zip": (archive(), "front/pack: the archive holds no file"),
    "zip bomb": (
        bomb,
        "front/pack: the archive unpacks to more than 200 times its size, at 'pack/zeros'",
    ),
    "path escape": (
        archive(("pack/config.json", CONFIG), ("pack/../../evil", b"x")),
        "front/pack: 'pack/../../evil' leads out of the package",
    ),
    "absolute path": (
        archive(("pack/config.json", CONFIG), ("/tmp/stoker-evil", b"x")),
        "front/pack: '/tmp/stoker-evil' is an absolute path",
    ),
    "link out": (
        archive(("pack/config.json", CONFIG), (link("pack/main.py"), b"/etc/passwd")),
        "front/pack: 'pack/main.py' is a link to '/etc/passwd', outside the package",
    ),
    "missing entry": (
        zipped("pack", {"other.py": HELLO}, PYTHON),
        "the package of 'pack' has no main.py, which python needs for the handler 'main.lambda_handler'; "
        "it holds config.json, other.py",
    ),
    "no config": (
        zipped("pack", {"main.py": HELLO}),
        "the package has no config.json; it must say which runtime it is for, as its 'environment'",
    ),
    "config is no JSON": (described("{"), "config.json is not JSON: Input data was truncated"),
    "unknown language": (
        described({"environment": "cobol85"}),
        "there is no runtime 'cobol85' here; there is …python (…)",
    ),
    "bad memory": (
        described({"environment": "python", "memory_mb": "much"}),
        "config.json: 'memory_mb' is \"much\"; it must be a whole number",
    ),
    "bad reuse": (
        described({"environment": "python", "reuse": "often"}),
        "config.json: 'reuse' is \"often\"; it must be one of none, sandbox, process",
    ),
    "unknown sandbox": (described({"environment": "python", "sandbox": "cloud"}), "…'cloud'…"),
    "unknown dependency": (
        zipped("pack", {"main.py": HELLO, "requirements.txt": DEPENDENCY}, PYTHON),
        f"front/pack: …No matching distribution found for {DEPENDENCY}",
    ),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_bad_package_is_refused_with_the_reason_and_healed_by_a_good_one(
    node: RunningNode, case: str
) -> None:
    content, said = PACKAGES[case]
    node.raw_package("pack", content() if callable(content) else content)
    answer = node.execute("pack")
    assert answer.status == 500
    message = failure(answer)
    assert is_said(said, message), message
    node.raw_package("pack", GOOD)
    node.ask("GET", "/clear?reset_images=true")
    assert node.execute("pack").json["Result"]["body"] == "Hello World"
    assert node.ask("GET", "/clear?reset_images=true").text == "done; reset_images=true"


def test_an_unknown_function_has_no_package(node: RunningNode) -> None:
    answer = node.execute("nobody")
    assert answer.status == 500
    assert failure(answer) == f"no function 'nobody': there is no {node.packages}/nobody.zip"
    assert error(node.call("nobody")) == (404, "no_such_function", "there is no function 'nobody'")


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", "%2e%2e", "a%00b", "a%0d%0ax:%20y", "x" * 200])
def test_a_name_that_is_a_path_is_no_function(node: RunningNode, name: str) -> None:
    answer = node.execute(name)
    assert answer.status == 500
    assert failure(answer).startswith("no such function")
    assert error(node.call(name))[0] in (400, 404)


# Requests


def test_an_event_of_ten_megabytes_is_refused_by_size(node: RunningNode) -> None:
    event = b'"' + b"x" * (TOO_LARGE - 2) + b'"'
    said = f"the event has {TOO_LARGE} bytes, this node takes at most {6 << 20}"
    answer = node.ask("POST", "/execute?name=hello", event)
    assert (answer.status, failure(answer)) == (413, said)
    assert error(node.ask("POST", "/functions/hello/call", event)) == (413, "payload_too_large", said)


def test_an_event_that_is_not_json_is_the_callers_mistake(node: RunningNode) -> None:
    answer = node.ask("POST", "/execute?name=hello", b"{'a': 1}")
    assert (answer.status, failure(answer)) == (400, "the body is not JSON: expected '\"' (byte 1)")
    assert node.deploy("plain", HELLO).status == 201
    assert error(node.ask("POST", "/functions/plain/call", b"{'a': 1}"))[:2] == (400, "BadEvent")
    assert node.ask("DELETE", "/functions/plain").status == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_told_which_there_are(node: RunningNode, method: str) -> None:
    answer = node.ask(method, "/execute?name=hello")
    assert answer.status == 405
    if method != "HEAD":
        assert failure(answer) == f"/execute takes GET and POST, not {method}"


def test_an_unknown_path_has_the_failure_shape(node: RunningNode) -> None:
    answer = node.ask("GET", "/nowhere")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert failure(answer).startswith("no such path '/nowhere'")


def test_of_two_deploys_at_once_one_wins_and_the_other_is_told(node: RunningNode) -> None:
    answers = together(lambda: node.deploy("twins", HELLO), lambda: node.deploy("twins", HELLO))
    assert sorted(answer.status for answer in answers) == [201, 409]
    refused = max(answers, key=lambda answer: answer.status)
    assert error(refused)[1] == "already_exists"
    assert "twins" in error(refused)[2]
    assert node.call("twins", {"a": 1}).json["event"] == {"a": 1}
    assert node.ask("DELETE", "/functions/twins").status == 200


def test_two_first_calls_at_once_build_once_and_both_are_answered(node: RunningNode) -> None:
    node.package("first", {"main.py": HELLO})
    answers = together(*[lambda n=n: node.execute("first", n) for n in range(4)])  # type: ignore[misc]
    assert sorted(answer.json["Result"]["event"] for answer in answers) == [0, 1, 2, 3]


def test_a_request_that_is_not_http_is_refused(node: RunningNode) -> None:
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "key", ["rest_mode=true", "container_pool_num=many", "using_rest_mode=", "rest_container_life_time=-1"]
)
def test_a_bad_configuration_changes_nothing(node: RunningNode, key: str) -> None:
    before = node.ask("GET", "/configure").json["State"]
    answer = node.ask("GET", f"/configure?container_pool_limit=3&{key}")
    assert answer.status == 400
    assert failure(answer)
    assert node.ask("GET", "/configure").json == {"Message": "nothing changed", "State": before}


BAD_WISHES = [
    (b"{", "bad_request", "the body is not JSON: Input data was truncated"),
    (b'{"name": "a"}', "bad_request", "code is not given; needed are code, name"),
    (
        b'{"name": "a/b", "runtime": "python", "code": "eA=="}',
        "bad_request",
        "name is \"a/b\"; it must be 1 to 63 letters, digits, '_', '.' or '-', "
        "the first a letter or digit, and no id",
    ),
]


@pytest.mark.parametrize(("wish", "type_", "said"), BAD_WISHES)
def test_a_bad_wish_for_a_function_names_the_field(
    node: RunningNode, wish: bytes, type_: str, said: str
) -> None:
    assert error(node.ask("POST", "/functions", wish)) == (400, type_, said)
