"""The one error that everything which writes to the disk can meet."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.errors import StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storing(what: str) -> Iterator[None]:
    """A full disk inside is `StorageFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StorageFull(f"no space left on the disk while {what}") from error
