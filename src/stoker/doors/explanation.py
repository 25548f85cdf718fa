"""How every reply explains itself: the headers and the words that all doors share.

`Server-Timing` says where the time went, `X-Stoker-Usage` what was used, `X-Stoker-Limit` which limit was
met, `X-Invocation-Id` which record and log lines belong to the call, `X-Stoker-Note` what was read
differently from how it was written. Which HTTP status goes with
what is each door's own table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from stoker.errors import Draining, NodeError, SandboxLost, TooBusy
from stoker.types import LimitHit, Outcome, Phases, Status, Usage

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
TEXT = (b"content-type", b"text/plain; charset=utf-8")
DRAINING_RETRY_S = 5  # about as long as a node that is stopped and started again is away

TYPES = {
    Status.OK: "",
    Status.FUNCTION_ERROR: "FunctionError",
    Status.TIMED_OUT: "TimedOut",
    Status.OUT_OF_MEMORY: "OutOfMemory",
    Status.OUTPUT_TOO_LARGE: "OutputTooLarge",
    Status.CRASHED: "Crashed",
    Status.CANCELLED: "Cancelled",
}
"""What a failure is called when it brings no type of its own."""

LIMITS = {
    LimitHit.MEMORY: "memory",
    LimitHit.WALL_TIME: "wall time",
    LimitHit.CPU_TIME: "processor time",
    LimitHit.OUTPUT: "output",
    LimitHit.RESULT: "its result",
    LimitHit.DISK: "scratch space",
    LimitHit.PIDS: "processes and threads",
}
"""What a limit is of, for people."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_TIMING: Final = b"admit;dur=%.3f, code;dur=%.3f, sandbox;dur=%.3f, init;dur=%.3f, run;dur=%.3f"
_CALL: Final = b"content-type: application/json\r\nserver-timing: " + _TIMING + b"\r\nx-invocation-id: %b\r\n"
_USAGE: Final = b"x-stoker-usage: cpu_ms=%.3f, memory_peak_bytes=%d\r\n"


def timing(phases: Phases) -> bytes:
    """The value of `Server-Timing`: all five phases, in milliseconds."""
    return _TIMING % (phases.admit, phases.code, phases.sandbox, phases.init, phases.run)


def usage(used: Usage) -> bytes:
    """The value of `X-Stoker-Usage`: what was measured, by name; empty where nothing was."""
    told = {name: getattr(used, name) for name in used.__struct_fields__}
    if used.cpu_ms is not None:
        told["cpu_ms"] = f"{used.cpu_ms:.3f}"
    return ", ".join(f"{name}={value}" for name, value in told.items() if value is not None).encode()


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they stand in a reply's head."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def outcome_lines(outcome: Outcome) -> bytes:
    """The head of a reply that tells how a function ended; what nearly all replies say is one template."""
    phases, used = outcome.phases, outcome.usage
    admit, code, sandbox, init, run = phases.admit, phases.code, phases.sandbox, phases.init, phases.run
    head = _CALL % (admit, code, sandbox, init, run, outcome.invocation.encode())
    if used.network_in_bytes is None and used.cpu_ms is not None and used.memory_peak_bytes is not None:
        head += _USAGE % (used.cpu_ms, used.memory_peak_bytes)
    elif told := usage(used):
        head += b"x-stoker-usage: %b\r\n" % told
    if outcome.limit is not None:
        head += b"x-stoker-limit: %b\r\n" % outcome.limit.value.encode()
    if outcome.note:
        head += b"x-stoker-note: %b\r\n" % header_text(outcome.note)
    return head


def error_headers(error: Exception, invocation: str = "", phases: Phases | None = None) -> Headers:
    """The headers of a reply that tells what the node refused or could not do.

    Without an `invocation` the request never became one; without `phases` the call was turned away at once.
    """
    headers = [JSON]
    if invocation:
        headers.append((b"server-timing", timing(phases or Phases())))
        headers.append((b"x-invocation-id", invocation.encode()))
    if isinstance(error, TooBusy | SandboxLost):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    elif isinstance(error, Draining):
        headers.append((b"retry-after", b"%d" % DRAINING_RETRY_S))
    return headers


def header_text(text: str) -> bytes:
    """Any text as a header's value: printable ASCII, in one line."""
    return _UNPRINTABLE.sub(" ", text).strip().encode()


def failure_type(outcome: Outcome) -> str:
    """The failure's own type, or what its status is called."""
    if outcome.error is not None and outcome.error.type:
        return outcome.error.type
    return TYPES[outcome.status]


def failure_message(outcome: Outcome) -> str:
    """What happened, without the type; never empty."""
    if outcome.error is not None and outcome.error.message:
        return outcome.error.message
    return f"the function ended as {outcome.status.value}"


def failure_line(outcome: Outcome) -> str:
    """What happened, in one sentence: an exception with its type, everything else as it is."""
    if outcome.status is not Status.FUNCTION_ERROR:
        line = failure_message(outcome)
    elif outcome.error is None or not outcome.error.message:
        line = failure_type(outcome)
    else:
        line = f"{failure_type(outcome)}: {outcome.error.message}"
    if outcome.limit is None or outcome.status not in (Status.FUNCTION_ERROR, Status.CRASHED):
        return line  # what ended it says so itself
    return f"{line} (it had met its limit of {LIMITS[outcome.limit]})"


def error_message(error: Exception) -> str:
    """A node error's message; of anything unforeseen only that it happened, for it may carry secrets."""
    return error.message if isinstance(error, NodeError) else "internal error; the node's log says more"
