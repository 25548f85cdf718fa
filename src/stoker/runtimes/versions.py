"""Versions of interpreters, as numbers that compare."""

from __future__ import annotations


def parse_version(text: str) -> tuple[int, ...]:
    """`3.11.7` as (3, 11, 7). Raises ValueError for anything but numbers and dots."""
    return tuple(int(part) for part in text.split("."))


def is_of(version: str, wanted: tuple[int, ...]) -> bool:
    """Whether a version is the wanted one, or one of the wanted series."""
    return parse_version(version)[: len(wanted)] == wanted


def distance(version: str, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """How far a version is from the wanted one: smaller is nearer; the newer of two as near is nearer."""
    own = parse_version(version)
    apart = tuple(abs(mine - theirs) for mine, theirs in zip(own, wanted, strict=False))
    return (*apart, *(-part for part in own))
