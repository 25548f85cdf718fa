"""What `/configure` may change while the node runs: one small object, owned by this door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from stoker.errors import BadRequest

Number = int | float

# The same ranges as the settings that these knobs start from.
LARGEST_BYTES = 2**62
MOST_FUNCTIONS = 100_000
MOST_WAITING = 10_000
LONGEST_LIFE_S = 30 * 86_400

LONGEST_SHOWN = 60  # characters of a bad value that its refusal repeats


class State(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The knobs as the protocol shows them."""

    user_code_size_limit: int = -1
    """Bytes of cached user code; -1: no limit."""
    container_pool_limit: int = -1
    """How many functions have sandboxes started before they are called; -1: off."""
    container_pool_num: int = 6
    """How many such sandboxes each of them has."""
    using_rest_mode: bool = False
    rest_container_life_time: Number = 10
    """Seconds an idle shared sandbox lives."""


class Knobs:
    """The state in force; `change()` is the only way to another one."""

    def __init__(self, state: State, apply: Callable[[State], None]) -> None:
        self.state = state
        self._apply = apply

    def change(self, wishes: Sequence[tuple[str, str]]) -> bool:
        """Put the wishes into force, all or none; tells whether any differs from what is.

        Raises `BadRequest` for an unknown or repeated key and for a value that is out of range.
        """
        wished = _read_all(wishes)
        state = msgspec.structs.replace(self.state, **wished)
        if state == self.state:
            return False
        self._apply(state)
        self.state = state
        return True

    def __repr__(self) -> str:
        return f"<Knobs {self.state}>"


def _read_all(wishes: Sequence[tuple[str, str]]) -> dict[str, Number]:
    read: dict[str, Number] = {}
    for key, value in wishes:
        if key not in _READERS:
            raise BadRequest(f"unknown key {key[:LONGEST_SHOWN]!r}; there are {', '.join(_READERS)}")
        if key in read:
            raise BadRequest(f"{key!r} is given more than once")
        read[key] = _READERS[key](key, value)
    return read


def _refusal(key: str, value: str, allowed: str) -> BadRequest:
    shown = repr(value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…")
    return BadRequest(f"{key} is {shown}; it must be {allowed}")


def _bool(key: str, value: str) -> bool:
    word = value.lower()
    if word not in ("true", "false"):
        raise _refusal(key, value, "true or false")
    return word == "true"


def _whole(least: int, most: int) -> Callable[[str, str], Number]:
    def read(key: str, value: str) -> Number:
        # isascii: int() also takes other scripts' digits, and underscores between them.
        digits = value.removeprefix("-")
        number = int(value) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
        if number is None or not least <= number <= most:
            raise _refusal(key, value, f"a whole number from {least} to {most}")
        return number

    return read


def _seconds(key: str, value: str) -> Number:
    plain = value.isascii() and value.replace(".", "", 1).isdigit() and len(value) < 20
    number = float(value) if plain else None
    if number is None or number > LONGEST_LIFE_S:
        raise _refusal(key, value, f"a number of seconds from 0 to {LONGEST_LIFE_S}")
    return whole_if_it_is(number)


def whole_if_it_is(number: float) -> Number:
    """10 rather than 10.0: existing clients read an integer."""
    return int(number) if number == int(number) else number


_READERS: Mapping[str, Callable[[str, str], Number]] = MappingProxyType(
    {
        "user_code_size_limit": _whole(-1, LARGEST_BYTES),
        "container_pool_limit": _whole(-1, MOST_FUNCTIONS),
        "container_pool_num": _whole(0, MOST_WAITING),
        "using_rest_mode": _bool,
        "rest_container_life_time": _seconds,
    }
)
