"""How a function's ends are told apart, by what is certain: wait status, the kernel's counters, our clock."""

from __future__ import annotations

from signal import SIGKILL, SIGXCPU, SIGXFSZ, Signals
from typing import Final

from stoker.types import Ending, FunctionError, LimitHit, Limits, Status

SIGNALS = frozenset(int(one) for one in Signals)
ENDS_FOR_CPU_TIME = (SIGKILL, SIGXCPU)


class Verdict:
    """One end."""

    __slots__ = ("error", "exit_code", "is_well", "limit", "signal", "status")

    def __init__(
        self,
        *,
        status: Status,
        error: FunctionError | None = None,
        limit: LimitHit | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
    ) -> None:
        self.status = status
        self.is_well = status is Status.OK
        self.error = error
        self.limit = limit
        """What ended it, if a limit did."""
        self.exit_code = exit_code
        self.signal = signal

    def __repr__(self) -> str:
        return f"<Verdict {self.status.value}>"


OK: Final = Verdict(status=Status.OK)
HAS_LEFT: Final = Verdict(
    status=Status.CANCELLED, error=FunctionError("Cancelled", "the caller left before the answer")
)


def of_error(error: FunctionError) -> Verdict:
    """The function failed, and its process lives."""
    if error.type == "ResultTooLarge":
        return Verdict(status=Status.OUTPUT_TOO_LARGE, error=error, limit=LimitHit.RESULT)
    return Verdict(status=Status.FUNCTION_ERROR, error=error)


def of_broken(reason: str) -> Verdict:
    """The server inside broke the rules of the wire."""
    return Verdict(status=Status.CRASHED, error=FunctionError("Crashed", f"the runtime was ended: {reason}"))


def of_wall_time(limits: Limits) -> Verdict:
    return _timed_out(f"the function did not answer within its limit of {limits.timeout_s:g} s")


def of_loading_time(allowed_s: float) -> Verdict:
    return _timed_out(f"the function was not loaded within {allowed_s:g} s")


def _timed_out(message: str) -> Verdict:
    error = FunctionError("TimedOut", message)
    return Verdict(status=Status.TIMED_OUT, error=error, limit=LimitHit.WALL_TIME)


def of_cpu_time(limits: Limits) -> Verdict:
    error = FunctionError("TimedOut", f"the function used more than its {limits.cpu_s:g} s of processor time")
    return Verdict(status=Status.TIMED_OUT, error=error, limit=LimitHit.CPU_TIME)


def of_output(limits: Limits) -> Verdict:
    said = f"more than {limits.output_bytes} bytes written to stdout or stderr"
    error = FunctionError("OutputTooLarge", said)
    return Verdict(status=Status.OUTPUT_TOO_LARGE, error=error, limit=LimitHit.OUTPUT)


def of_ending(ending: Ending, limits: Limits, is_for_memory: bool) -> Verdict:
    """The function's process ended without an answer; `is_for_memory`: the kernel killed it for that."""
    if is_for_memory:
        error = FunctionError(
            "OutOfMemory", f"the function used more than its {limits.memory_mb} MB of memory"
        )
        status, limit = Status.OUT_OF_MEMORY, LimitHit.MEMORY
        return Verdict(status=status, error=error, limit=limit, signal=ending.signal)
    if ending.signal is None:
        error = FunctionError(
            "Exited", f"the function exited with code {ending.exit_code} before it answered"
        )
        return Verdict(status=Status.CRASHED, error=error, exit_code=ending.exit_code)
    name = Signals(ending.signal).name if ending.signal in SIGNALS else str(ending.signal)
    return Verdict(
        status=Status.CRASHED,
        error=FunctionError("Crashed", f"the function was killed by {name}"),
        limit=LimitHit.DISK if ending.signal == SIGXFSZ else None,
        signal=ending.signal,
    )


def is_for_cpu_time(signal: int, cpu_ns: int, limits: Limits) -> bool:
    """Whether a call's own process was ended for its processor time: it was killed, and had used it all."""
    return limits.cpu_s is not None and signal in ENDS_FOR_CPU_TIME and cpu_ns >= limits.cpu_s * 1e9
