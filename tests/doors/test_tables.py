"""Invariant 1: every refusal has a stable code, and every code a row in the table of every door."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from stoker import plugins
from stoker.doors import explanation
from stoker.errors import NodeError, Refused
from stoker.types import Status

DOORS = plugins.names("doors")


def family(error: type[NodeError]) -> Iterator[type[NodeError]]:
    yield error
    for child in error.__subclasses__():
        yield from family(child)


ERRORS = list(family(NodeError))


def replies(door: str) -> ModuleType:
    return importlib.import_module(f"stoker.doors.{door}.replies")


@pytest.mark.parametrize("door", DOORS)
def test_every_error_code_has_a_row_in_the_doors_table(door: str) -> None:
    codes = {error.code for error in ERRORS}
    rows = set(replies(door).STATUSES)
    assert codes - rows == set(), f"add them to STATUSES of doors/{door}/replies.py"
    assert rows - codes == set(), "rows for codes that no error has"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_row_is_the_status_of_an_error(door: str, error: type[NodeError]) -> None:
    room = replies(door)
    status = room.status_of(error("what happened"))
    assert status == room.STATUSES[error.code]
    assert 400 <= status <= 599
    assert b"what happened" in room.error_body(error("what happened"))


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in ERRORS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", [error for error in ERRORS if issubclass(error, Refused)])
def test_a_functions_door_blames_the_caller_only_for_what_the_caller_can_change(
    error: type[NodeError],
) -> None:
    status = replies("functions").STATUSES[error.code]
    assert status < 500 or error.code in ("draining", "deadline_passed")


def test_every_failing_status_has_a_type_and_an_http_status() -> None:
    outcomes = replies("functions").OUTCOMES
    assert set(outcomes) == set(Status) == set(explanation.TYPES)
    assert all(
        outcomes[status] >= 500 and explanation.TYPES[status] for status in Status if status != Status.OK
    )
