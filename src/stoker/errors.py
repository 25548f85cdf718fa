"""What the node could not do: two families, told apart by who must act.

How a *function* ended is never an error here but an `Outcome`. The test for which: would the same
call on a healthy, idle node end the same way? Then it is an Outcome.

Each class has a stable `code`; its docstring is the default message. HTTP statuses live only in
each door's reply table.
"""

from __future__ import annotations


class NodeError(Exception):
    """The node could not do this."""

    code = "node_error"

    def __init__(self, message: str = "") -> None:
        message = message or (type(self).__doc__ or "").strip()
        # Names of files stand in messages, and need not be text: a message always is.
        super().__init__(message.encode("utf-8", "backslashreplace").decode())

    @property
    def message(self) -> str:
        return str(self.args[0])


class Refused(NodeError):
    """The caller can act."""

    code = "refused"


class BadRequest(Refused):
    """The request cannot be understood."""

    code = "bad_request"


class PayloadTooLarge(BadRequest):
    """The event is larger than this node accepts."""

    code = "payload_too_large"


class NoSuchFunction(Refused):
    """There is no function of that name."""

    code = "no_such_function"


class NoSuchInvocation(Refused):
    """There is no invocation of that id."""

    code = "no_such_invocation"


class AlreadyExists(Refused):
    """There is a function of that name already."""

    code = "already_exists"


class TooBusy(Refused):
    """The line is full; try again later."""

    code = "too_busy"

    def __init__(self, message: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Draining(Refused):
    """The node is stopping and takes no new calls."""

    code = "draining"


class Impatient(Refused):
    """The caller's deadline passed while the call waited in line."""

    code = "deadline_passed"


class Broken(NodeError):
    """The node must act."""

    code = "broken"


class CodeUnavailable(Broken):
    """The function's code could not be fetched."""

    code = "code_unavailable"


class BadCode(Refused):
    """The function's package cannot be used as it is."""

    code = "bad_code"


class BuildFailed(Broken):
    """The function's dependencies could not be built."""

    code = "build_failed"


class SandboxFailed(Broken):
    """The sandbox could not be made."""

    code = "sandbox_failed"


class SandboxLost(SandboxFailed):
    """What held the sandbox ended, and the sandbox with it; try again."""

    code = "sandbox_lost"
    retry_after_s = 1


class BackendUnavailable(Broken):
    """This sandbox backend does not work on this machine."""

    code = "backend_unavailable"


class BackendLost(BackendUnavailable):
    """What makes the sandboxes has ended; the node can run nothing any more and stops."""

    code = "backend_lost"


class Unsupported(Broken):
    """This node cannot do that."""

    code = "unsupported"


class StorageFull(Broken):
    """No space left for the function's code."""

    code = "storage_full"


class SettingsError(NodeError):
    """A setting is unknown or has a bad value."""

    code = "bad_setting"
