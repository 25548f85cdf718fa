from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import leaks
from cli.conftest import Shell
from stoker.cli.exits import FAILED, REFUSED, UNREACHABLE, USAGE
from stoker.settings import Settings

CODE = """
import sys

def lambda_handler(event, context):
    print("printed", event)
    print("complained", file=sys.stderr)
    if event.get("fail"):
        raise ValueError("as asked")
    return {"sum": sum(event.get("numbers", []))}
"""


@pytest.fixture(scope="module")
def adder() -> Iterator[Shell]:
    """A node with a function `adder`, for all tests here: one for each would take most of their time."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-cli-"))
    folder.chmod(0o755)
    shell = Shell(folder, folder / "home")
    (folder / "adder").mkdir()
    (folder / "adder" / "main.py").write_text(CODE)
    shell.does("start", "-d")
    shell.does("deploy", "adder")
    yield shell
    shell.does("stop")
    leaks.remove(folder)
    assert leaks.left([folder.name, Settings(home=folder / "home").node_id]) == []


def test_a_result_goes_to_stdout_and_what_was_printed_to_stderr(adder: Shell) -> None:
    done = adder.run("invoke", "adder", "-d", '{"numbers": [1, 2]}')
    assert json.loads(done.stdout) == {"sum": 3}
    assert done.stderr == "printed {'numbers': [1, 2]}\ncomplained\n"


def test_an_event_may_come_from_a_file_or_from_stdin(adder: Shell) -> None:
    (adder.folder / "event.json").write_text('{"numbers": [4]}')
    assert json.loads(adder.does("invoke", "adder", "-d", "@event.json")) == {"sum": 4}
    assert json.loads(adder.does("invoke", "adder", "-d", "-", event=b'{"numbers": [5]}')) == {"sum": 5}
    assert json.loads(adder.does("invoke", "adder")) == {"sum": 0}


def test_the_whole_outcome_is_json_when_asked_for(adder: Shell) -> None:
    outcome = json.loads(adder.does("invoke", "adder", "--json"))
    assert (outcome["status"], outcome["result"], outcome["error"]) == ("ok", {"sum": 0}, None)
    assert (outcome["stdout"], outcome["stderr"]) == ("printed {}\n", "complained\n")
    assert list(outcome["phases_ms"]) == ["admit", "code", "sandbox", "init", "run"]
    assert outcome["took_ms"] >= sum(outcome["phases_ms"].values())
    assert len(outcome["id"]) == 32


def test_a_function_that_fails_ends_with_1_and_says_why(adder: Shell) -> None:
    said = adder.fails(FAILED, "invoke", "adder", "-d", '{"fail": true}', "--json")
    done = adder.run("invoke", "adder", "-d", '{"fail": true}', "--json")
    outcome = json.loads(done.stdout)
    assert said == ""
    assert (outcome["status"], outcome["result"]) == ("function_error", None)
    assert (outcome["error"]["type"], outcome["error"]["message"]) == ("ValueError", "as asked")
    done = adder.run("invoke", "adder", "-d", '{"fail": true}')
    assert done.returncode == FAILED
    assert done.stdout == ""
    assert "ValueError: as asked" in done.stderr


def test_what_is_not_there_or_not_json_is_refused(adder: Shell) -> None:
    assert "there is no function 'nobody'" in adder.fails(REFUSED, "invoke", "nobody")
    assert "there is no function 'nobody'" in adder.fails(REFUSED, "logs", "nobody")
    assert "there is no function 'nobody'" in adder.fails(REFUSED, "delete", "nobody")
    assert "JSON" in adder.fails(REFUSED, "invoke", "adder", "-d", "{")


def test_what_is_no_text_is_refused_as_what_it_is(adder: Shell) -> None:
    odd = os.fsdecode(b"\xff")
    assert "JSON" in adder.fails(REFUSED, "invoke", "adder", "-d", odd)
    assert "there is no function" in adder.fails(REFUSED, "invoke", odd)
    assert "there is no function" in adder.fails(REFUSED, "logs", odd)
    assert "there is no function" in adder.fails(REFUSED, "delete", odd)
    assert adder.fails(REFUSED, "deploy", "adder", "--name", odd)


def test_logs_show_calls_oldest_first_with_what_they_printed(adder: Shell) -> None:
    adder.does("deploy", "adder", "--name", "logged")
    for number in (1, 2, 3):
        adder.does("invoke", "logged", "-d", json.dumps({"numbers": [number]}))
    said = adder.does("logs", "logged", "-n", "2")
    assert [line for line in said.splitlines() if "printed" in line] == [
        "  printed {'numbers': [2]}",
        "  printed {'numbers': [3]}",
    ]
    records = [json.loads(line) for line in adder.does("logs", "logged", "--json").splitlines()]
    assert [record["stdout"] for record in records] == [
        f"printed {{'numbers': [{number}]}}\n" for number in (1, 2, 3)
    ]


STEERING = """
def lambda_handler(event, context):
    print("\\33[2Jon")
    raise ValueError("\\33]0;owned\\7")
"""


def test_what_a_function_says_does_not_steer_the_terminal(adder: Shell) -> None:
    (adder.folder / "steering.py").write_text(STEERING)
    adder.does("deploy", "steering.py")
    assert "ValueError: �]0;owned�" in adder.run("invoke", "steering").stderr
    said = adder.does("logs", "steering")
    assert "�[2Jon" in said
    assert "\x1b" not in said


def test_logs_follow_calls_as_they_end(adder: Shell) -> None:
    adder.does("deploy", "adder", "--name", "followed")
    adder.does("invoke", "followed")
    with adder.begin("logs", "followed", "-f", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["stdout"] == "printed {}\n"
        adder.does("invoke", "followed", "-d", '{"numbers": [7]}')
        assert json.loads(process.stdout.readline())["stdout"] == "printed {'numbers': [7]}\n"
        process.terminate()


def test_functions_are_listed_replaced_and_deleted(adder: Shell) -> None:
    new = adder.folder / "short.py"
    new.write_text("def lambda_handler(event, context): return 'old'")
    adder.does("deploy", "short.py")
    assert "short" in adder.does("functions")
    assert "there is a function 'short' already; --replace deploys over it" in adder.fails(
        REFUSED, "deploy", "short.py"
    )
    new.write_text("def lambda_handler(event, context): return 'new'")
    adder.does("deploy", "short.py", "--replace", "--memory", "64", "--timeout", "2.5s", "-e", "GREETING=hi")
    assert adder.does("invoke", "short") == '"new"\n'
    config = {one["name"]: one["config"] for one in json.loads(adder.does("functions", "--json"))}["short"]
    assert (config["memory_mb"], config["timeout"]) == (64, "2.5s")
    assert config["environment"] == {"GREETING": "hi"}
    adder.does("delete", "short")
    assert "short" not in adder.does("functions")
    adder.fails(REFUSED, "invoke", "short")


def test_a_single_file_is_a_function_too(adder: Shell) -> None:
    (adder.folder / "hi.py").write_text("def lambda_handler(event, context): return 'hi'")
    record = json.loads(adder.does("deploy", "hi.py", "--name", "greeter", "--json"))
    assert (record["name"], record["runtime"]) == ("greeter", "python")
    assert adder.does("invoke", "greeter") == '"hi"\n'


def test_what_cannot_be_a_function_is_said_before_it_is_sent(adder: Shell) -> None:
    (adder.folder / "empty").mkdir()
    assert "does not tell its language" in adder.fails(USAGE, "deploy", "empty")
    assert "does not exist" in adder.fails(USAGE, "deploy", "nowhere")
    (adder.folder / "hi.py").touch()
    assert "say it as KEY=VALUE" in adder.fails(USAGE, "deploy", "hi.py", "-e", "GREETING")


def test_status_tells_what_the_node_does(adder: Shell) -> None:
    before = json.loads(adder.does("status", "--json"))
    adder.does("invoke", "adder")
    after = json.loads(adder.does("status", "--json"))
    assert after["pid"] == adder.pid()
    assert after["calls"]["outcomes"]["ok"] == before["calls"]["outcomes"]["ok"] + 1
    assert after["url"] in adder.does("status")


def test_a_node_is_found_by_url_port_and_home(adder: Shell, tmp_path: Path) -> None:
    url = json.loads(adder.does("status", "--json"))["url"]
    elsewhere = Shell(tmp_path, tmp_path / "no-home")
    for which in (("--url", url), ("--port", url.rpartition(":")[2]), ("--home", str(adder.home))):
        assert json.loads(elsewhere.does("status", "--json", *which))["url"] == url


def test_without_a_node_every_command_says_so(shell: Shell, free_port: int) -> None:
    (shell.folder / "hi.py").touch()
    for command in (["status"], ["functions"], ["invoke", "f"], ["logs", "f"], ["deploy", "hi.py"]):
        said = shell.fails(UNREACHABLE, *command, "--port", str(free_port))
        assert "no node answers at" in said
    assert f"no node runs in {shell.home}" in shell.fails(UNREACHABLE, "status", "--home", str(shell.home))


def test_doctor_ends_well_when_the_sandbox_works(shell: Shell) -> None:
    found = json.loads(shell.does("doctor", "--json"))
    assert found["works"]
    assert {"python", "kernel", "cgroups", "sandbox process", "runtime python"} <= {
        finding["what"] for finding in found["findings"]
    }
    assert "sandbox process" in shell.does("doctor")
    done = shell.run("doctor", "--sandbox", "gvisor")
    assert done.returncode == FAILED
    assert "sandbox gvisor" in done.stdout


def test_settings_are_shown_as_they_are_in_force(shell: Shell) -> None:
    (shell.folder / "stoker.toml").write_text("pool_num = 3")
    now = json.loads(shell.does("settings", "--json"))
    assert (now["pool_num"], now["home"], now["sandbox"]) == (3, str(shell.home), "process")
    assert "pool_num" in shell.does("settings")


def test_a_mistyped_command_is_a_usage_error(shell: Shell) -> None:
    assert "No such command 'strat'" in shell.fails(USAGE, "strat")
    assert "No such option" in shell.fails(USAGE, "stop", "--now")


def test_help_loads_nothing_of_a_node() -> None:
    heavy = {"asyncio", "http.client", "litestar", "logging", "sqlalchemy", "stoker.node", "uvicorn"}
    code = (
        "import sys; from stoker.cli.app import run; code = run(['--help']); "
        f"sys.exit(code or repr({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=False
    )
    assert done.stderr.decode() == "set()\n"
    assert "Exit codes" in done.stdout.decode()
