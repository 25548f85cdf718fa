"""The pipe of permits that goes into a sandbox as descriptor 4 (see `docs/wire.md`).

Theory. A semaphore of `eventfd` would do, but its two ends are one open file: a function could clear
`O_NONBLOCK` for the node too, or add permits for ever. Of a pipe it holds the reading end alone. Ours
is opened anew, to write and to read back, so its flags are its own; and the pipe belongs to whoever
made it, so what is inside cannot open it a second time unless it runs as the same user.
"""

from __future__ import annotations

import os

_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def make_permits() -> tuple[int, int]:
    """Our end and the one that goes inside; neither ever blocks."""
    theirs, writing = os.pipe2(_FLAGS)
    try:
        ours = os.open(f"/proc/self/fd/{theirs}", os.O_RDWR | _FLAGS)
    except OSError:
        os.close(theirs)
        raise
    finally:
        os.close(writing)
    return ours, theirs
