"""From names of system calls to a filter the kernel loads: compiled by libseccomp, once for each node.

A policy allows by name. What it does not know is answered ENOSYS, as by an older kernel, so that
libraries fall back; what it refuses on purpose is answered EPERM.

Two programs, because the strictest answer of all loaded ones wins: libseccomp can allow a call when
an argument has a value, but not when it has *not*; so the second program allows everything but that.
"""

from __future__ import annotations

import errno
import io
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

WORD = 0xFFFFFFFF  # the kernel looks at 32 bits of these arguments, and so do we


class Argument(NamedTuple):
    """A condition: argument `position`, seen through `mask`, is `value`; with no mask, all of it is above."""

    position: int
    mask: int
    value: int


class Policy(NamedTuple):
    """What a sandbox may ask of the kernel."""

    allowed: frozenset[str]
    allowed_if: Mapping[str, tuple[Argument, ...]]
    """Allowed when any one of the conditions holds, else unknown."""
    refused: frozenset[str]
    refused_if: Mapping[str, tuple[Argument, ...]]
    """Of the allowed ones: refused all the same when any one of the conditions holds."""


def is_available() -> bool:
    """Whether libseccomp is on this machine."""
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def compile_policy(policy: Policy, until_last: frozenset[str] = frozenset()) -> tuple[bytes, bytes]:
    """The programs to load, in that order; both together are the policy.

    Calls that are there `until_last` are forbidden by the second alone: who has loaded the first, the larger
    one by far, can still make them, and so can what it forks.
    """
    import pyseccomp

    first = _new_filter(pyseccomp, pyseccomp.ERRNO(errno.ENOSYS))
    for name in policy.allowed | until_last:
        _rule(pyseccomp, first, pyseccomp.ALLOW, name)
    for name in policy.refused - until_last:
        _rule(pyseccomp, first, pyseccomp.ERRNO(errno.EPERM), name)
    for name, conditions in policy.allowed_if.items():
        for condition in conditions:
            _rule(pyseccomp, first, pyseccomp.ALLOW, name, condition)
    second = _new_filter(pyseccomp, pyseccomp.ALLOW)
    for name in until_last - policy.allowed:
        refusal = errno.EPERM if name in policy.refused else errno.ENOSYS
        _rule(pyseccomp, second, pyseccomp.ERRNO(refusal), name)
    for name, conditions in policy.refused_if.items():
        for condition in conditions:
            _rule(pyseccomp, second, pyseccomp.ERRNO(errno.EPERM), name, condition)
    return _export(first), _export(second)


def _new_filter(pyseccomp: Any, default: int) -> Any:
    new = pyseccomp.SyscallFilter(default)
    new.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    new.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree: five times faster to load than a list
    return new


def _rule(pyseccomp: Any, new: Any, action: int, name: str, condition: Argument | None = None) -> None:
    arguments = []
    if condition is not None and condition.mask:
        arguments.append(
            pyseccomp.Arg(condition.position, pyseccomp.MASKED_EQ, condition.mask, condition.value)
        )
    elif condition is not None:
        arguments.append(pyseccomp.Arg(condition.position, pyseccomp.GT, condition.value))
    try:
        number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    except (ValueError, OSError):
        return
    if number >= 0:
        new.add_rule(action, name, *arguments)


def _export(made: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0, io.SEEK_SET)
        exported: bytes = file.read()
        return exported
