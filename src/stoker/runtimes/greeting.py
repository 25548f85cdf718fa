"""What node and server tell each other before the first call (see `docs/wire.md`)."""

from __future__ import annotations

import msgspec

WIRE = 1


class Load(msgspec.Struct, kw_only=True):
    """The payload of LOAD."""

    wire: int = WIRE
    code: str
    handler: str
    mode: str
    concurrency: int
    function: str
    memory_mb: int
    log_bytes: int
    result_bytes: int
    cpu_ms: int = 0
    """In mode `fork`: the processor time of one call; 0: no limit."""
    environment: dict[str, str]
    tells: bool = False
    """Say with LOADED which modules of the packages beside the code it names."""
    imports: tuple[str, ...] = ()
    """With `freeze`: import these packages, and nothing of the function's own."""
    freeze: bool = False
    """Hand over, with LOADED, what others can become instead of loading it anew; serve no call."""


class Hello(msgspec.Struct):
    """The payload of HELLO, as far as it matters here."""

    wire: int
    queues: bool = False


decode_hello = msgspec.json.Decoder(Hello).decode
