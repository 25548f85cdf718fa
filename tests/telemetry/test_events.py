from __future__ import annotations

from typing import ClassVar

from stoker.telemetry.events import Event, Events


class SandboxReady(Event):
    level: ClassVar[str] = "info"
    name: str


def broken(_: Event) -> None:
    raise ZeroDivisionError


def test_every_listener_hears_every_event_in_order() -> None:
    first: list[Event] = []
    second: list[Event] = []
    events = Events(first.append, second.append)
    said = [SandboxReady(name="a"), SandboxReady(name="b")]
    for event in said:
        events.emit(event)
    assert first == second == said


def test_a_listener_that_fails_is_counted_and_harms_nobody() -> None:
    heard: list[Event] = []
    events = Events(broken, heard.append)
    events.emit(SandboxReady(name="a"))
    assert heard == [SandboxReady(name="a")]
    assert events.lost == 1
