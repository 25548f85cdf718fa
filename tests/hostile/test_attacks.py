"""Every attack of the table, on a real node: it ends as it must, and nobody else notices."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hostile.arena import CLEAN_S, FUNCTIONS, Arena
from hostile.cases import LIMITS, SECTIONS, Case
from journeys.running import Answer

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]

CASES = [pytest.param(case, id=f"{section}-{case}") for section, cases in SECTIONS.items() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_an_attack_ends_as_it_must_and_nobody_else_notices(field: Arena, case: Case) -> None:
    if field.sandbox == "process" and case.cannot:
        pytest.skip(f"process cannot: {case.cannot}")
    name = field.ready(case.language, case.timeout, **({"cpu_time": case.cpu_time} if case.cpu_time else {}))
    more = {"port": field.node.port, "walls": field.sandbox != "process", "program": case.language == "c"}
    clean_s = case.clean_s if field.sandbox == "process" else CLEAN_S
    with field.watched(lambda: field.call(name, "peace.hello"), clean_s):
        answer = field.call(name, case.attack, **more, **case.event)
    wanted = (field.sandbox == "process" and case.elsewhere) or case.ends
    assert ending_of(answer) in (wanted, *wanted.split()), answer
    if field.sandbox != "process" or case.cpu_time:
        limit = answer.headers.get("x-stoker-limit", "")
        assert limit == (case.limit or LIMITS.get(ending_of(answer), limit))
    assert case.says in answer.body.decode(), answer
    if answer.status == 200 and "not-json" not in wanted:
        assert answer.json == [], "what it got through with"


def ending_of(answer: Answer) -> str:
    assert "x-injected" not in answer.headers
    if answer.status == 200:
        return "ok"
    error = answer.json["error"]
    assert error["message"], "a failure that says nothing"
    return str(error["type"])


def names_in(file: Path) -> set[str]:
    """The attacks that a file of functions holds."""
    text = file.read_text()
    if file.suffix == ".py":
        found = {
            node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.args.args
        }
        return {f"{file.stem}.{name}" for name in found if not name.startswith("_")}
    if file.suffix == ".js":
        return {f"{file.stem}.{name}" for name in re.findall(r"^exports\.(\w+)", text, re.MULTILINE)}
    return set(re.findall(r'\{"(\w+)", \w+\}', text))


@pytest.mark.parametrize("language", ["python", "nodejs", "c"])
def test_every_attack_stands_in_the_table(language: str) -> None:
    written = {name for file in (FUNCTIONS / language).iterdir() if file.is_file() for name in names_in(file)}
    tabled = {case.attack for cases in SECTIONS.values() for case in cases if case.language == language}
    beside = {
        "descriptors.frame",
        "trying.breaches",
        "trying.detach",
        "main.handler",
        "main.run_program",
    }
    left_over = written - tabled - beside
    assert {name for name in left_over if not name.startswith(("peace.", "index.", "reuse."))} == set()
    assert tabled - written == set()
