"""What is promised of a plain process, in the words of the probe: there is no wall, so only what it is given.

SECURITY.md shows this table, `stoker doctor --walls` and a test compare it with what is seen from inside.
"""

from __future__ import annotations

PROMISES = {
    "process": {
        "descriptors 0 to 4": "pipe; /dev/null: 0; socket: 3",
        "more descriptors": "none",
        "environment": "what was given",
        "session": "own",
        "terminal": "none",
        "signals ignored or blocked": "none",
    }
}
