"""How an exception is told to the caller: type, message and the function's own part of the traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType

OWN_FOLDER = os.path.dirname(os.path.abspath(__file__))
CODE_PATH = "/app/function"
PREFIX_PATH = "/opt/stoker"
_MOST_CAUSES = 10
_LARGEST_ERRNO = 4095  # the kernel's own bound


class LoadFailed(Exception):
    """The function could not be loaded: the three texts of an ERROR frame."""

    def __init__(self, kind: str, message: str, stack: str = "") -> None:
        super().__init__(kind, message, stack)
        self.error = (kind, message, stack)


class Teller:
    """Tells exceptions without the server's own frames and without paths of the host."""

    def __init__(self, code: str) -> None:
        self._paths = [(code.rstrip("/"), CODE_PATH)]
        if not sys.base_prefix.startswith(("/usr", PREFIX_PATH)):
            version = ".".join(map(str, sys.version_info[:3]))
            self._paths.append((sys.base_prefix, f"{PREFIX_PATH}/python-{version}"))

    def tell(self, error: BaseException) -> tuple[str, str, str]:
        """An exception's type, message and stack."""
        try:
            message = str(error)
        except BaseException as broken:
            message = f"(its message cannot be had: {type(broken).__name__})"
        return type(error).__name__, self._hide(message), self._hide(self._format(error))

    def _format(self, error: BaseException) -> str:
        import traceback

        try:
            lines = traceback.format_exception(type(error), error, _without_own(error.__traceback__))
        except BaseException as broken:
            return f"{type(error).__name__} (its traceback cannot be had: {type(broken).__name__})\n"
        return "".join(lines)

    def _hide(self, text: str) -> str:
        for path, shown in self._paths:
            text = text.replace(path, shown)
        return text


def find_errno(error: BaseException | None) -> int:
    """The errno of the system call that failed, here or in what led to this; 0: none did."""
    try:
        for _ in range(_MOST_CAUSES):
            if isinstance(error, OSError) and isinstance(error.errno, int):
                return error.errno if 0 < error.errno <= _LARGEST_ERRNO else 0
            error = error and (error.__cause__ or error.__context__)
    except BaseException:
        """The function's own class has something else in its place."""
    return 0


def _without_own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither the server's nor asyncio's."""
    asyncio = sys.modules.get("asyncio")
    folders = (OWN_FOLDER, os.path.dirname(asyncio.__file__ or OWN_FOLDER) if asyncio else OWN_FOLDER)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(folders):
        trace = trace.tb_next
    return trace
