"""Makes the record of a call that has just ended."""

from __future__ import annotations

import time
from typing import Final

from stoker.errors import NodeError
from stoker.records.model import InvocationRecord
from stoker.types import NO_LOGS, Invocation, Outcome, Status

MESSAGE_KEPT = 8 * 1024  # characters; a message longer than this is data, not a message
STACK_KEPT = 64 * 1024  # characters; a recursion error's stack of 1000 frames has about 60,000
OK: Final = Status.OK


def of_outcome(outcome: Outcome, created_at: float, door: str = "") -> InvocationRecord:
    """The record of an invocation that has just ended, without its result."""
    usage = outcome.usage
    if outcome.status is OK and outcome.limit is None and outcome.logs is NO_LOGS:
        # Nearly all end like this; to say of each what it lacks takes four times as long.
        return InvocationRecord(
            id=outcome.invocation,
            function=outcome.function,
            door=door,
            status=outcome.status,
            phases=outcome.phases,
            cpu_ms=usage.cpu_ms,
            memory_peak_bytes=usage.memory_peak_bytes,
            network_in_bytes=usage.network_in_bytes,
            network_out_bytes=usage.network_out_bytes,
            sandbox=outcome.sandbox,
            source=outcome.source,
            built=outcome.built,
            created_at=created_at,
            finished_at=time.time(),
        )
    error, logs = outcome.error, outcome.logs
    return InvocationRecord(
        id=outcome.invocation,
        function=outcome.function,
        door=door,
        status=outcome.status,
        limit=outcome.limit or "",
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        error_type=error.type if error else "",
        error_message=error.message[:MESSAGE_KEPT] if error else "",
        error_stack=error.stack[:STACK_KEPT] if error else "",
        stdout=logs.stdout,
        stderr=logs.stderr,
        stdout_cut=logs.stdout_cut,
        stderr_cut=logs.stderr_cut,
        phases=outcome.phases,
        cpu_ms=usage.cpu_ms,
        memory_peak_bytes=usage.memory_peak_bytes,
        network_in_bytes=usage.network_in_bytes,
        network_out_bytes=usage.network_out_bytes,
        sandbox=outcome.sandbox,
        source=outcome.source if outcome.sandbox else "",
        built=outcome.built,
        created_at=created_at,
        finished_at=time.time(),
    )


def of_error(invocation: Invocation, error: NodeError, created_at: float) -> InvocationRecord:
    """The record of an invocation that the node could not carry out."""
    return InvocationRecord(
        id=invocation.id,
        function=invocation.function,
        door=invocation.door,
        status=error.code,
        error_type=error.code,
        error_message=error.message[:MESSAGE_KEPT],
        created_at=created_at,
        finished_at=time.time(),
    )
