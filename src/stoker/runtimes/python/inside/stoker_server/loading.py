"""From a LOAD frame to a handler that can be called."""

from __future__ import annotations

import builtins
import os
import sys
import time
from types import FunctionType, MethodType

from .failures import LoadFailed, Teller

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[[Any, Any], Any]

DEPENDENCIES = ".stoker/deps"
_TAKES_ANY_NUMBER = 0x04  # inspect.CO_VARARGS, without importing inspect


def prepare_process(code: str, environment: dict[str, str]) -> None:
    """Make this process the function's: its folder, its modules first, its environment."""
    if environment:
        os.environ.update(environment)
    if "TZ" in environment:
        time.tzset()
    sys.path[:0] = [code, f"{code}/{DEPENDENCIES}"]
    sys.argv = [code]
    sys.dont_write_bytecode = True
    os.chdir(code)


def restore_exit() -> None:
    """`exit` and `quit` come from the module `site`, which is not run here; functions call them."""
    from _sitebuiltins import Quitter

    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))


def find_handler(code: str, notation: str, teller: Teller) -> Callable[..., Any]:
    """Import the module and return its function. Raises LoadFailed."""
    module_name, _, name = notation.replace("/", ".").rpartition(".")
    if not module_name:
        raise LoadFailed("NoSuchHandler", f"{notation!r} is not of the form 'module.function'")
    module = _import(code, module_name, teller)
    handler: Callable[..., Any] | None = getattr(module, name, None)
    if handler is None or not callable(handler):
        raise LoadFailed("NoSuchHandler", _tell_functions(module, module_name, name))
    return handler


def _import(code: str, name: str, teller: Teller) -> object:
    try:
        # Not importlib.import_module: `__import__` leaves the import system out of tracebacks.
        __import__(name)
        return sys.modules[name]
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and (name + ".").startswith(f"{error.name}."):
            raise LoadFailed("NoSuchHandler", _tell_modules(code, name)) from None
        kind, message, stack = teller.tell(error)
        raise LoadFailed("ImportFailed", f"{kind}: {message}", stack) from None


def _tell_modules(code: str, name: str) -> str:
    there = sorted(entry.name for entry in os.scandir(code) if entry.name.endswith(".py"))
    return f"no module {name!r} in the function's folder; there is {', '.join(there) or 'no .py file'}"


def _tell_functions(module: object, module_name: str, name: str) -> str:
    there = sorted(
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module_name
    )
    return f"no function {name!r} in {module_name!r}; there is {', '.join(there) or 'none'}"


def adapt(handler: Callable[..., Any]) -> Handler:
    """Let a handler of no, one or two parameters be called with both."""
    wanted = _count_parameters(handler)
    if wanted >= 2:
        return handler
    if wanted == 1:
        return lambda event, context: handler(event)
    return lambda event, context: handler()


def _count_parameters(handler: Callable[..., Any]) -> int:
    plain = handler
    while hasattr(plain, "__wrapped__"):
        plain = plain.__wrapped__
    bound = isinstance(plain, MethodType)
    if isinstance(plain, MethodType):
        plain = plain.__func__
    if not isinstance(plain, FunctionType):
        return _count_by_signature(handler)
    if plain.__code__.co_flags & _TAKES_ANY_NUMBER:
        return 2
    return plain.__code__.co_argcount - bound


def _count_by_signature(handler: Callable[..., Any]) -> int:
    import inspect

    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters)
