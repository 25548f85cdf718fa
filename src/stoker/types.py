"""The words every room shares: what goes in, what comes out, what bounds it.

Everything here is a value: frozen, comparable, without behaviour beyond small questions. What is made
for each call has `gc=False`: a value refers to values, so there is no cycle for the collector to find.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

MEBIBYTE = 1024 * 1024


class Status(StrEnum):
    """How the *function* ended. What the node could not do is a `NodeError` instead."""

    OK = "ok"
    FUNCTION_ERROR = "function_error"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_TOO_LARGE = "output_too_large"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


class LimitHit(StrEnum):
    """Which limit a call has met: known from counters and wait status, never guessed."""

    MEMORY = "memory"
    WALL_TIME = "wall_time"
    CPU_TIME = "cpu_time"
    OUTPUT = "output"
    """Bytes written to stdout or stderr."""
    RESULT = "result"
    DISK = "disk"
    """Bytes or files in scratch space, or the size of one file."""
    PIDS = "pids"
    """Processes and threads."""


class Reuse(StrEnum):
    """Which calls of one function may share a sandbox (never across functions)."""

    NONE = "none"
    """Every call a fresh sandbox, destroyed after it."""
    SANDBOX = "sandbox"
    """One sandbox for the function, a fresh process for each call, calls concurrent."""
    PROCESS = "process"
    """A warm process serves one call after another, or `concurrency` at a time."""


class Interpreter(StrEnum):
    """Which process of its language a sandbox runs in."""

    FORKED = "forked"
    """A fork of one that is kept ready: the quickest. Languages that cannot be forked have their own."""
    OWN = "own"
    """Executed for this sandbox alone: it has its own addresses and its own secret of `hash()`."""


class Network(StrEnum):
    """What a sandbox can reach."""

    NONE = "none"
    EGRESS = "egress"
    """The internet, from a network of its own; never the host, its other networks or its neighbours."""
    HOST = "host"
    """The host's own network. For builds only: no function gets it."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one sandbox, or one call in it, may use at most."""

    memory_mb: int = 128
    timeout_s: float = 30.0
    """Wall time of one call; importing the function's code has its own allowance of the same length."""
    cpu_s: float | None = None
    """Processor time of one call, all its threads and processes together; None: as much as its wall time
    allows."""
    cpus: float = 1.0
    pids: int = 64
    scratch_mb: int = 64
    scratch_inodes: int = 16_384
    log_bytes: int = 256 * 1024
    """Kept of each of stdout and stderr of one call; the rest is dropped and marked as such."""
    output_bytes: int = 16 * MEBIBYTE
    """Written to stdout or stderr by one call before the call is ended as `output_too_large`."""
    result_bytes: int = 6 * MEBIBYTE
    """The largest result; a larger one ends the call as `output_too_large`."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function as it is to be run: which code, in which language, under which limits."""

    key: str
    """`<catalog>/<name>`, for example `front/W1`: unique on this node."""
    name: str
    runtime: str
    version: str
    """The interpreter's version in force, for example `3.11.7`."""
    handler: str
    """What to call inside, in the runtime's own notation: `main.lambda_handler`, `index.handle`."""
    revision: str
    """Changes whenever code or configuration does; a sandbox serves one revision only."""
    limits: Limits = Limits()
    reuse: Reuse | None = None
    """None: as the door that brings the call prefers."""
    concurrency: int = 1
    """How many calls one sandbox serves at a time, with `Reuse.PROCESS`."""
    max_concurrency: int = 0
    """How many calls run at a time in all; more wait in line. 0: as many as there is room for."""
    network: Network = Network.NONE
    egress: tuple[str, ...] = ()
    """With `Network.EGRESS`: all it may reach, as `stoker.egress` reads it; empty: what the node allows."""
    sandbox: str | None = None
    """The backend's name; None: the node's default."""
    environment: dict[str, str] = {}
    zygote: bool = True
    """What its import has made may be kept, and shared by sandboxes that start later."""
    interpreter: Interpreter = Interpreter.FORKED
    packages: str = ""
    """Names what its build has installed, by its bytes; empty: nothing."""
    note: str = ""
    """What a caller should know about how the function was read, for example a version that was mapped."""


class Invocation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call as a door hands it to the node (invariant 1)."""

    id: str
    """32 hexadecimal digits (UUID version 7)."""
    function: str
    """The function's key."""
    body: bytes
    door: str = ""
    """Through which it came in."""
    deadline: float
    """The caller's patience, on the monotonic clock, waiting in line included."""
    reuse: Reuse = Reuse.PROCESS
    """What the door prefers; a function that says `reuse` itself has the last word."""
    keep_s: float | None = None
    """How long an idle sandbox of this function is kept; None: the node's setting."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was used, as far as the backend can tell; None where it cannot."""

    cpu_ms: float | None = None
    memory_peak_bytes: int | None = None
    network_in_bytes: int | None = None
    network_out_bytes: int | None = None


class Hits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How often a sandbox has met its limits so far, counted by the kernel; 0 where nobody counts."""

    oom_kills: int = 0
    """Processes inside that were killed for memory."""
    forks_refused: int = 0
    """Processes and threads that were not made because there were too many."""
    is_disk_full: bool = False
    """No byte, or no file, more fits into scratch space now."""


class Ending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a sandbox ended: the facts, from wait status and cgroup events, never guessed."""

    exit_code: int | None = None
    signal: int | None = None
    """The number of the signal that ended the function's process."""
    out_of_memory: bool = False
    """It was killed, and the kernel had killed something in it for exceeding its memory limit."""
    destroyed: bool = False
    """We ended it."""
    lost: bool = False
    """What held it ended, and it with that: it says nothing of the function."""
    hits: Hits = Hits()
    """As they were counted at its end."""
    usage: Usage = Usage()


class FunctionError(msgspec.Struct, frozen=True, gc=False):
    """What a function's failure says of itself."""

    type: str
    message: str
    stack: str = ""
    errno: int = 0
    """Of the system call that failed, where the failure was one; 0: not said."""


class Phases(msgspec.Struct, gc=False):
    """Where the time of one call went, in milliseconds; a phase not entered is 0."""

    admit: float = 0.0
    code: float = 0.0
    sandbox: float = 0.0
    init: float = 0.0
    run: float = 0.0

    def total(self) -> float:
        return self.admit + self.code + self.sandbox + self.init + self.run


class Source(StrEnum):
    """Where the sandbox of a call came from."""

    FRESH = "fresh"
    """Made for this call."""
    POOLED = "pooled"
    """Started before the call came and waiting for one of its function."""
    WARM = "warm"
    """Has served this function before (or, shared, is serving it now)."""


class Logs(msgspec.Struct, frozen=True, gc=False):
    """What the function wrote to its stdout and stderr, as bytes, cut at `Limits.log_bytes` each."""

    stdout: bytes = b""
    stderr: bytes = b""
    stdout_cut: bool = False
    stderr_cut: bool = False


NO_LOGS = Logs()


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The one clear end of a call."""

    invocation: str
    function: str
    status: Status
    result: bytes = b""
    """The function's result, a JSON text for handlers; empty unless `ok`."""
    error: FunctionError | None = None
    limit: LimitHit | None = None
    """The limit that ended the call; of a call that ended otherwise, the one it is known to have met."""
    exit_code: int | None = None
    """Of the function's process, if it ended by itself without an answer."""
    signal: int | None = None
    """The number of the signal that ended the function's process."""
    logs: Logs = NO_LOGS
    phases: Phases
    usage: Usage = Usage()
    sandbox: str = ""
    """The sandbox's name; empty when the call ended before it had one."""
    source: Source = Source.FRESH
    built: bool = False
    """This call had to fetch and build the code."""
    note: str = ""
    """`Function.note`, passed on for the reply's headers."""
