"""What the Worker Front protocol says for each end of a call: bytes, made once.

The function's JSON is put into the reply as it came; nothing here decodes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from stoker.doors.explanation import error_message
from stoker.types import Outcome, Source

FAILED = 500

# The protocol knows one status for everything that fails, 500, and 400 for what /configure cannot
# read. Three more are ours, where a load balancer acts on the status: 413 (never send it again),
# 429 and 503 with Retry-After (send it elsewhere, or later).
STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "node_error": FAILED,
        "refused": FAILED,
        "bad_request": 400,
        "payload_too_large": 413,
        "no_such_function": FAILED,
        "no_such_invocation": FAILED,
        "already_exists": FAILED,
        "too_busy": 429,
        "draining": 503,
        "deadline_passed": FAILED,
        "broken": FAILED,
        "code_unavailable": FAILED,
        "bad_code": FAILED,
        "build_failed": FAILED,
        "sandbox_failed": FAILED,
        "sandbox_lost": 503,
        "backend_unavailable": FAILED,
        "backend_lost": 503,
        "unsupported": FAILED,
        "storage_full": FAILED,
        "bad_setting": FAILED,
    }
)

_SUCCESS = (
    b'{"Result": %b, "ExecutionTime": %d, "InternalExecutionTime": %d, '
    b'"Meta": {"ImageBuilt": %b, "UsingPooledContainer": %b, "UsingExistingRestContainer": %b, '
    b'"ContainerName": "%b", "ImageName": "hf_%b%b"}}'
)
_WORDS = (b"false", b"true")
_text = msgspec.json.Encoder().encode


class Failure(msgspec.Struct, frozen=True, rename="pascal"):
    """The protocol's one failure shape."""

    error: bool
    message: str


def status_of(error: Exception) -> int:
    """The HTTP status for a node error; 500 for what nobody foresaw."""
    return STATUSES.get(getattr(error, "code", ""), FAILED)


def failure(message: str) -> bytes:
    """The failure shape."""
    return _text(Failure(True, message))


def error_body(error: Exception) -> bytes:
    """The failure shape for a node error."""
    return failure(error_message(error))


def success(outcome: Outcome, name: str, took_ms: int) -> bytes:
    """The reply of a call that ended well; `name` is the function's, of ASCII without quotes.

    The pool names sandboxes as this protocol shows them: `hf_w1__9437_98081`, shared `hf_w1__rest`.
    """
    return _SUCCESS % (
        outcome.result or b"null",
        took_ms,
        outcome.phases.run,
        _WORDS[outcome.built],
        _WORDS[outcome.source is Source.POOLED],
        _WORDS[outcome.source is Source.WARM],
        outcome.sandbox.encode(),
        name.lower().encode(),
        b"_rest" if outcome.sandbox.endswith("__rest") else b"",
    )
