"""The words in which a probe tells what it saw; those in `OPEN` begin what is no wall."""

from __future__ import annotations

import errno

OPEN = ("allowed", "shared", "unlimited", "kept", "reached", "readable")
# What the kernel answers to who may not; any other error means that it has looked at the arguments.
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS)
# Answered when this kernel has no such thing.
UNKNOWN = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOENT, errno.ENXIO)


def name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def word_of(number: int) -> str:
    """The word for the outcome of a system call; 0 is success."""
    return "denied " + name_of(number) if number in REFUSALS else "allowed"


def word_of_error(error: OSError) -> str:
    """The word for what an attempt ended with, where every error but "there is none" is a wall."""
    number = error.errno or 0
    return "absent" if number in UNKNOWN else "denied " + name_of(number)
