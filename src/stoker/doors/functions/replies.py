"""What the Functions API says for each end of a call: bytes, and the tables of statuses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from stoker.doors.explanation import error_message, failure_message, failure_type
from stoker.types import Outcome, Status

INTERNAL = 500

# 507 stands for two kinds of too little room, a function's memory and the node's disk; `type` tells.
STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "node_error": INTERNAL,
        "refused": 400,
        "bad_request": 400,
        "payload_too_large": 413,
        "no_such_function": 404,
        "no_such_invocation": 404,
        "already_exists": 409,
        "too_busy": 429,
        "draining": 503,
        "deadline_passed": 503,
        "broken": INTERNAL,
        "code_unavailable": 502,
        "bad_code": 422,
        "build_failed": INTERNAL,
        "sandbox_failed": INTERNAL,
        "sandbox_lost": 503,
        "backend_unavailable": 503,
        "backend_lost": 503,
        "unsupported": 501,
        "storage_full": 507,
        "bad_setting": INTERNAL,
    }
)

OUTCOMES: Mapping[Status, int] = MappingProxyType(
    {
        Status.OK: 200,
        Status.FUNCTION_ERROR: 500,
        Status.TIMED_OUT: 504,
        Status.OUT_OF_MEMORY: 507,
        Status.OUTPUT_TOO_LARGE: 500,
        Status.CRASHED: 500,
        Status.CANCELLED: 503,
    }
)

BAD_EVENT = "BadEvent"
"""The type by which the server inside says that the event was not JSON: the caller's mistake."""

_encode = msgspec.json.Encoder().encode


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an error reply says."""

    type: str
    message: str
    stack: str = ""
    limit: str = ""
    exit_code: int | None = None
    signal: int | None = None


class ErrorReply(msgspec.Struct, frozen=True):
    """The one shape of every error."""

    error: Fault


def status_of(error: Exception) -> int:
    """The HTTP status for a node error; 500 for what nobody foresaw."""
    return STATUSES.get(getattr(error, "code", ""), INTERNAL)


def error_body(error: Exception) -> bytes:
    """The error shape for a node error; its type is the error's stable code."""
    return fault(getattr(error, "code", "internal_error"), error_message(error))


def fault(type_: str, message: str) -> bytes:
    """The error shape."""
    return _encode(ErrorReply(Fault(type_, message)))


def outcome_status(outcome: Outcome) -> int:
    """The HTTP status for how a function ended."""
    if outcome.status is Status.FUNCTION_ERROR and failure_type(outcome) == BAD_EVENT:
        return 400
    return OUTCOMES[outcome.status]


def failure(outcome: Outcome) -> bytes:
    """The error shape for a call that did not end well, with its type, message and stack."""
    told = Fault(
        failure_type(outcome),
        failure_message(outcome),
        outcome.error.stack if outcome.error else "",
        outcome.limit or "",
        outcome.exit_code,
        outcome.signal,
    )
    return _encode(ErrorReply(told))
