"""What the plan hears and what it says: events in the past tense, actions in the imperative."""

from __future__ import annotations

from enum import Enum

import msgspec

from stoker.types import Reuse, Source


class Flaw(Enum):
    """Why a zygote was not made, as far as it matters for the next attempt."""

    LASTING = "lasting"
    """Another one would not do better."""
    PASSING = "passing"
    """It may have been the machine: tried again after a while, a few times."""
    NONE = "none"
    """It was given up, or is not worth it: tried again after the next import that takes long."""


class Need(msgspec.Struct, frozen=True, gc=False):
    """What a lease needs; leases with the same `revision` and `reuse` can share sandboxes."""

    revision: str
    function: str
    reuse: Reuse
    memory_mb: int
    places: int = 1
    """How many leases one sandbox serves at a time."""
    depth: int = 0
    """How many more leases may queue inside one sandbox behind those that run."""
    at_most: int = 0
    """How many leases all sandboxes of the revision serve at a time; 0: no bound but the budget."""
    keep_s: float | None = None
    """How long an idle sandbox is kept; None: as the plan's policy says."""
    packages: str = ""
    """Names what is installed for it, by its bytes, and what runs it; the same are imported alike. Empty: it
    starts from no zygote of packages."""
    can_freeze: bool = False
    """What its import has made can be kept as a zygote."""
    tells_memory: bool = False
    """Its sandboxes tell what they hold; an idle one may count with that instead of its limit."""
    least_mb: int = 0
    """What an idle one counts with at least, whatever it holds: more of them there cannot be."""
    key: str = ""
    """Told by revision and reuse: leases of the same key can share sandboxes. Written by itself."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", f"{self.revision} {self.reuse.value}")


# Events


class LeaseAsked(msgspec.Struct, frozen=True, gc=False):
    lease: int
    need: Need


class LeaseWithdrawn(msgspec.Struct, frozen=True, gc=False):
    """The caller does not wait any more; a lease already granted comes back by `LeaseReturned`."""

    lease: int


class LeaseReturned(msgspec.Struct, frozen=True, gc=False):
    lease: int
    is_healthy: bool
    run_s: float | None = None
    """How long the function itself ran, where it came to an answer."""
    cpu_s: float = 0.0
    """How long it kept a processor busy."""
    has_written: bool = False
    """The function wrote to its stdout or stderr."""


class SandboxReady(msgspec.Struct, frozen=True, gc=False):
    sandbox: int


class SandboxLoaded(msgspec.Struct, frozen=True, gc=False):
    """The function's code was imported in it, which took so long."""

    sandbox: int
    took_s: float
    is_thawed: bool = False
    """It became its zygote instead."""
    is_partly: bool = False
    """It became its packages' zygote, and imported the rest."""
    imports: frozenset[str] = frozenset()
    """The modules of its packages that its code names, as it says."""


class SandboxQueues(msgspec.Struct, frozen=True, gc=False):
    """Calls that have not begun in it can be taken back, so leases may queue there."""

    sandbox: int


class SandboxStalled(msgspec.Struct, frozen=True, gc=False):
    """Calls that queued in it were taken back: no lease queues there until `SandboxQueues` says so again."""

    sandbox: int


class SandboxMeasured(msgspec.Struct, frozen=True, gc=False):
    """The answer to `MeasureSandbox`: it holds so much; None: nobody can tell."""

    sandbox: int
    memory_mb: int | None


class SandboxEnded(msgspec.Struct, frozen=True, gc=False):
    """It failed to start, died or broke the rules: no further lease; it is to be destroyed."""

    sandbox: int
    reason: str = ""
    """Why it could not be started; refuses the lease that waited longest for it."""


class SandboxGone(msgspec.Struct, frozen=True, gc=False):
    """Nothing of it is left."""

    sandbox: int


class Retired(msgspec.Struct, frozen=True, gc=False):
    """These functions' sandboxes serve no new lease: by revision, or by the function's key's prefix."""

    revision: str = ""
    prefix: str = ""


class PrewarmChanged(msgspec.Struct, frozen=True, gc=False):
    functions: int
    """How many of the most recently used; negative or 0: none."""
    each: int


class SparesChanged(msgspec.Struct, frozen=True, gc=False):
    """What a backend has made ahead, for nobody yet."""

    number: int
    memory_mb: int


class ZygoteReady(msgspec.Struct, frozen=True, gc=False):
    """It is made: sandboxes of its function can start from it. It holds so much."""

    zygote: int
    memory_mb: int
    lineage: int = 0
    """Only sandboxes of that lineage can start from it."""


class LineageAged(msgspec.Struct, frozen=True, gc=False):
    """What is frozen of it is to be made anew, and the lineage then released."""

    lineage: int


class LineageOver(msgspec.Struct, frozen=True, gc=False):
    """There are no sandboxes of it to be had any more."""

    lineage: int


class ZygoteFailed(msgspec.Struct, frozen=True, gc=False):
    """It could not be made, or was given up before it was."""

    zygote: int
    flaw: Flaw = Flaw.LASTING


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed."""


Event = (
    LeaseAsked
    | LeaseWithdrawn
    | LeaseReturned
    | SandboxReady
    | SandboxLoaded
    | SandboxQueues
    | SandboxStalled
    | SandboxMeasured
    | SandboxEnded
    | SandboxGone
    | Retired
    | PrewarmChanged
    | SparesChanged
    | ZygoteReady
    | ZygoteFailed
    | LineageAged
    | LineageOver
    | Tick
)


# Actions


class StartSandbox(msgspec.Struct, frozen=True, gc=False):
    sandbox: int
    need: Need
    zygote: int = 0
    """What it starts from; 0: from nothing."""


class GrantLease(msgspec.Struct, frozen=True, gc=False):
    lease: int
    sandbox: int
    source: Source
    runs_at_once: bool = True
    """False: it queues behind those inside."""


class RefuseLease(msgspec.Struct, frozen=True, gc=False):
    lease: int
    reason: str
    is_for_good: bool = False
    """Asking again will not help."""


class DestroySandbox(msgspec.Struct, frozen=True, gc=False):
    sandbox: int


class BoundSpares(msgspec.Struct, frozen=True, gc=False):
    """Spares may hold so much, all together."""

    memory_mb: int


class MakeZygote(msgspec.Struct, frozen=True, gc=False):
    zygote: int
    need: Need
    imports: frozenset[str] = frozenset()
    """Of packages alone: these modules, and nothing of the function's own."""


class DropZygote(msgspec.Struct, frozen=True, gc=False):
    """It is to be given up; if it is still being made, once it is."""

    zygote: int


class ReleaseLineage(msgspec.Struct, frozen=True, gc=False):
    """Nothing that is frozen needs it any more."""

    lineage: int


class MeasureSandbox(msgspec.Struct, frozen=True, gc=False):
    """Look what an idle one holds, and say so by `SandboxMeasured`."""

    sandbox: int


Action = (
    StartSandbox
    | GrantLease
    | RefuseLease
    | DestroySandbox
    | BoundSpares
    | MakeZygote
    | DropZygote
    | ReleaseLineage
    | MeasureSandbox
)


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """What the plan knows, for people and metrics."""

    starting: int
    busy: int
    idle: int
    dying: int
    waiting: int
    spares: int
    committed_mb: int
    budget_mb: int
    zygotes: int = 0
