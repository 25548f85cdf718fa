"""What exit codes mean, and the one place where errors become them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stoker.errors import BackendLost, NodeError, Refused, SettingsError

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
NODE = 5
LOST = 6
INTERRUPTED = 130

MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        OK: "done; the function succeeded",
        FAILED: "the function failed (invoke), the default sandbox fails or breaks a promise (doctor)",
        USAGE: "the command line or a setting is wrong",
        UNREACHABLE: "no node there",
        REFUSED: "refused or not found: the caller can act",
        NODE: "the node could not do it, or could not start",
        LOST: "the node lost what makes its sandboxes, and stopped",
    }
)


class Failure(Exception):
    """A command's end with a message for its user."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: NodeError | type[NodeError]) -> int:
    """The exit code for an error of ours."""
    kind = error if isinstance(error, type) else type(error)
    if issubclass(kind, SettingsError):
        return USAGE
    if issubclass(kind, BackendLost):
        return LOST
    return REFUSED if issubclass(kind, Refused) else NODE


def code_of_type(error_type: str) -> int | None:
    """The exit code for an error's stable code as a reply carries it; None: that is no error of the node."""
    codes = {NodeError.code: NODE, "internal_error": NODE}
    codes |= {error.code: code_of(error) for error in _below(NodeError)}
    return codes.get(error_type)


def _below(family: type[NodeError]) -> list[type[NodeError]]:
    direct = family.__subclasses__()
    return direct + [deeper for one in direct for deeper in _below(one)]
