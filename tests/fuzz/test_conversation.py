"""The node's end of the wire in any conversation: calls come and go while anything is said from inside."""

from __future__ import annotations

import struct

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fuzz.targets import check_heard, check_session
from runtimes.test_wire import HELLO_FRAME, LOADED_FRAME, bodies, frame, good_frames, kinds, listen, numbers
from stoker.runtimes.wire import DATA_OUT, HEADER, MORE, RESULT, TIMES


class Conversation(RuleBasedStateMachine):
    """One session from its beginning to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.session, self.ear, self.line = listen()
        self.calls = 0
        self.is_rude = False

    def is_open(self) -> bool:
        return not self.line.is_aborted

    def has_calls(self) -> bool:
        return bool(self.session._calls)

    def may_be_rude(self) -> bool:
        return self.is_rude

    @initialize(is_rude=st.booleans())
    def begins(self, is_rude: bool) -> None:
        """A server that keeps to the shape of frames gets further than one that does not."""
        self.is_rude = is_rude
        if not is_rude:
            self._say(HELLO_FRAME + LOADED_FRAME)

    @precondition(may_be_rude)
    @rule()
    def greets(self) -> None:
        self._say(HELLO_FRAME + LOADED_FRAME)

    @rule(is_queued=st.booleans())
    def is_called(self, is_queued: bool) -> None:
        self.calls += 1
        send = self.session.queue if is_queued else self.session.call
        number = send(self.ear.of_call(self.calls), bytes(16), 1000, b"{}")
        assert number == self.calls

    @precondition(has_calls)
    @rule(which=st.integers(0, 3))
    def is_cancelled(self, which: int) -> None:
        self.session.cancel(self._call(which))

    @precondition(has_calls)
    @rule(which=st.integers(0, 3))
    def is_forgotten(self, which: int) -> None:
        self.session.forget(self._call(which))

    @rule()
    def sends_queued(self) -> None:
        self.session.send_queued()

    @rule(said=good_frames)
    def says_what_is_right(self, said: bytes) -> None:
        self._say(said)

    @precondition(has_calls)
    @rule(which=st.integers(0, 3), value=st.binary(max_size=40), is_last=st.booleans())
    def says_a_part(self, which: int, value: bytes, is_last: bool) -> None:
        number = self._call(which)
        if number not in self.session._parts:
            self._say(frame(RESULT | MORE, number, TIMES.pack(1, 1) + value))
        else:
            self._say(frame(DATA_OUT if is_last else DATA_OUT | MORE, number, value))

    @precondition(may_be_rude)
    @rule(kind=kinds, number=numbers, payload=bodies)
    def says_anything_in_a_frame(self, kind: int, number: int, payload: bytes) -> None:
        self._say(frame(kind, number, payload))

    @precondition(may_be_rude)
    @rule(data=st.binary(max_size=30))
    def says_anything(self, data: bytes) -> None:
        self._say(data)

    @precondition(may_be_rude)
    @rule(length=st.integers(0, 2**32 - 1))
    def promises(self, length: int) -> None:
        self._say(struct.pack("!I", length) + bytes(HEADER.size - 4))

    @precondition(may_be_rude)
    @rule()
    def leaves(self) -> None:
        if self.is_open():
            self.session.connection_lost(None)

    @invariant()
    def holds(self) -> None:
        check_session(self.session, self.line.is_aborted)
        check_heard(self.ear.heard)

    def _call(self, which: int) -> int:
        """One of those under way."""
        under_way = sorted(self.session._calls)
        return under_way[which % len(under_way)]

    def _say(self, data: bytes) -> None:
        if self.is_open():
            self.session.data_received(data)


test_a_session_holds_in_any_conversation = Conversation.TestCase
