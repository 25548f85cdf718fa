"""The records themselves: what is kept of one invocation and of one deployed function."""

from __future__ import annotations

from typing import Any

import msgspec

from stoker.types import Interpreter, Network, Phases, Reuse


class InvocationRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One invocation after its end."""

    id: str
    function: str
    """The function's key: `functions/hello`."""
    door: str = ""
    """Through which it came; empty where nobody said."""
    status: str
    """A `types.Status`, or the code of what the node could not do."""
    limit: str = ""
    """A `types.LimitHit`: what ended the call, or what it is known to have met; empty: none."""
    exit_code: int | None = None
    signal: int | None = None
    error_type: str = ""
    error_message: str = ""
    error_stack: str = ""
    result: bytes = b""
    """Kept for callers that come back for it; a synchronous call has taken it along."""
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_cut: bool = False
    stderr_cut: bool = False
    phases: Phases = msgspec.field(default_factory=Phases)
    cpu_ms: float | None = None
    memory_peak_bytes: int | None = None
    """Of its sandbox, over that one's life so far."""
    network_in_bytes: int | None = None
    network_out_bytes: int | None = None
    sandbox: str = ""
    source: str = ""
    """A `types.Source`; empty when there was no sandbox."""
    built: bool = False
    created_at: float
    """Seconds since 1970, as `finished_at`."""
    finished_at: float

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.rpartition("/")[2]

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return 1024 + len(self.stdout) + len(self.stderr) + len(self.result) + len(self.error_stack)


class FunctionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployed function is to be run."""

    timeout_s: float = 30.0
    cpu_time_s: float | None = None
    memory_mb: int = 128
    max_concurrency: int = 10
    """Calls of it inside the node at once."""
    environment: dict[str, str] = {}
    reuse: Reuse | None = None
    concurrency: int = 1
    """Calls inside one sandbox at once."""
    network: Network = Network.NONE
    egress: tuple[str, ...] = ()
    sandbox: str | None = None
    zygote: bool = True
    interpreter: Interpreter = Interpreter.FORKED


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One deployed function."""

    id: str
    name: str
    version: str = "1.0.0"
    """The deployer's word; ours is `digest`."""
    runtime: str
    handler: str
    digest: str
    """Of the package as it was uploaded."""
    config: FunctionConfig = FunctionConfig()
    metadata: dict[str, Any] = {}
    created_at: float
    updated_at: float
