"""The shipped double: a sandbox without a process, for tests of everything around sandboxes.

It speaks real frames over a real socket pair and its answers depend on nothing but the event, so a
test says in the event what shall happen. The words are those of `server.Server`.
"""

from __future__ import annotations

from stoker.sandboxes.fake.backend import Backend, Settings

__all__ = ["Backend", "Settings"]
