"""The node's end of the wire under every order, every split and every lie."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.runtimes.greeting import WIRE, Load
from stoker.runtimes.wire import (
    CALL,
    CANCEL,
    DATA_OUT,
    ERROR,
    EXIT,
    EXITED,
    FRAMES_AT_ONCE,
    HEADER,
    HELLO,
    LOAD,
    LOADED,
    LOG,
    MORE,
    QUEUED,
    RESULT,
    SLACK,
    TIMES,
    Session,
)
from stoker.types import FunctionError

RESULT_BYTES = 4096
ANSWERS = (RESULT, ERROR, EXITED)

HELLO_FRAME = HEADER.pack(10, HELLO, 0) + b'{"wire":1}'
LOADED_FRAME = HEADER.pack(8, LOADED, 0) + bytes(8)


class Line(asyncio.Transport):
    """A transport that keeps what is written on it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False
        self.is_paused = False
        self.later: deque[Callable[[], None]] = deque()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_aborted
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def turn(self) -> None:
        """One turn of the event loop."""
        for _ in range(len(self.later)):
            self.later.popleft()()


class Ear:
    """Hears the session and all its calls, in one list."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def connected(self) -> None: ...
    def greeted(self, can_queue: bool) -> None:
        self.heard.append(("greeted", can_queue))

    def loaded(self, load_ns: int) -> None:
        self.heard.append(("loaded", load_ns))

    def load_failed(self, error: FunctionError) -> None:
        self.heard.append(("load_failed", error))

    def session_ended(self, reason: str) -> None:
        self.heard.append(("session_ended", reason))

    def of_call(self, name: int) -> CallEar:
        return CallEar(name, self.heard)


class CallEar:
    def __init__(self, name: int, heard: list[tuple[object, ...]]) -> None:
        self.name = name
        self.heard = heard

    def wrote(self, stream: int, data: bytes) -> None:
        self.heard.append((self.name, "wrote", stream, data))

    def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
        self.heard.append((self.name, "answered", run_ns, cpu_ns, result))

    def raised(self, run_ns: int, cpu_ns: int, error: FunctionError) -> None:
        self.heard.append((self.name, "raised", run_ns, cpu_ns, error))

    def exited(self, exit_code: int, signal: int, cpu_ns: int) -> None:
        self.heard.append((self.name, "exited", exit_code, signal, cpu_ns))


def listen(calls: int = 0, is_loaded: bool = False) -> tuple[Session, Ear, Line]:
    """A session on a line, with so many calls under way, numbered from 1."""
    ear, line = Ear(), Line()
    session = Session(ear, RESULT_BYTES, line.later.append)
    session.connection_made(line)
    for name in range(1, calls + 1):
        session.call(ear.of_call(name), bytes(16), 1000, b"{}")
    if is_loaded:
        session.data_received(HELLO_FRAME + LOADED_FRAME)
        ear.heard.clear()
    return session, ear, line


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, number) + payload


def result(number: int, value: bytes, kind: int = RESULT) -> bytes:
    return frame(kind, number, TIMES.pack(7, 5) + value)


def error(number: int, body: bytes = b'{"type":"T","message":"m","stack":"s"}') -> bytes:
    return frame(ERROR, number, TIMES.pack(7, 5) + body)


# What we say


def test_a_load_is_one_frame_of_json() -> None:
    session, _, line = listen()
    load = Load(
        code="/app/function",
        handler="main.f",
        mode="process",
        concurrency=1,
        function="f",
        memory_mb=1,
        log_bytes=2,
        result_bytes=3,
        environment={"A": "ü"},
    )
    session.load(load)
    length, kind, number = HEADER.unpack_from(line.written)
    assert (length, kind, number) == (len(line.written) - HEADER.size, LOAD, 0)
    assert msgspec.json.decode(line.written[HEADER.size :], type=Load) == load
    assert msgspec.json.decode(line.written[HEADER.size :])["wire"] == WIRE


def test_a_call_is_one_frame_with_a_number_of_its_own() -> None:
    session, ear, line = listen()
    numbers = [session.call(ear.of_call(n), bytes([n]) * 16, 250, b"[1]") for n in (1, 2)]
    assert numbers == [1, 2]
    expected = [frame(CALL, n, bytes([n]) * 16 + struct.pack("!I", 250) + b"[1]") for n in numbers]
    assert line.written == b"".join(expected)


def test_queued_calls_go_out_together_when_they_are_sent() -> None:
    session, ear, line = listen()
    for n in (1, 2):
        session.queue(ear.of_call(n), bytes(16), 250, b"")
    assert line.written == b""
    session.send_queued()
    assert line.written == b"".join(frame(QUEUED, n, bytes(16) + struct.pack("!I", 250)) for n in (1, 2))


def test_a_cancelled_call_is_told_to_the_server_and_heard_of_no_more() -> None:
    session, ear, line = listen(calls=1, is_loaded=True)
    line.written = b""
    session.cancel(1)
    session.cancel(1)
    session.data_received(result(1, b"[]") + frame(LOG, 1, b"\1late"))
    assert line.written == frame(CANCEL, 1)
    assert ear.heard == []


def test_a_closed_session_says_and_hears_nothing() -> None:
    session, ear, line = listen(calls=1, is_loaded=True)
    session.close()
    session.close()
    session.call(ear.of_call(2), bytes(16), 1, b"")
    session.connection_lost(None)
    assert line.is_aborted
    assert ear.heard == []


# What we hear, told right


def test_the_beginning_is_heard_in_order() -> None:
    session, ear, _ = listen()
    session.data_received(frame(HELLO, 0, b'{"wire":1,"runtime":"x","queues":true}'))
    session.data_received(frame(LOADED, 0, struct.pack("!Q", 9)))
    assert ear.heard == [("greeted", True), ("loaded", 9)]


def test_a_load_that_failed_is_heard_with_its_error() -> None:
    session, ear, _ = listen()
    session.data_received(HELLO_FRAME + error(0))
    assert ear.heard == [("greeted", False), ("load_failed", FunctionError("T", "m", "s"))]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (result(1, b"[]"), (1, "answered", 7, 5, b"[]")),
        (result(1, b""), (1, "answered", 7, 5, b"")),
        (error(1), (1, "raised", 7, 5, FunctionError("T", "m", "s"))),
        (error(1, b'{"type":"T","message":"m"}'), (1, "raised", 7, 5, FunctionError("T", "m"))),
        (frame(EXITED, 1, EXIT.pack(3, -1, 9)), (1, "exited", 3, -1, 9)),
    ],
)
def test_each_end_of_a_call_is_heard_once(said: bytes, heard: tuple[object, ...]) -> None:
    session, ear, _ = listen(calls=1, is_loaded=True)
    session.data_received(said + said)
    assert ear.heard == [heard]


def test_parts_of_a_result_are_joined() -> None:
    session, ear, _ = listen(calls=2, is_loaded=True)
    session.data_received(result(1, b"[1,", RESULT | MORE) + result(2, b"[]"))
    session.data_received(frame(DATA_OUT | MORE, 1, b"2,") + frame(DATA_OUT, 1, b"3]"))
    assert ear.heard == [(2, "answered", 7, 5, b"[]"), (1, "answered", 7, 5, b"[1,2,3]")]


def test_a_call_that_ends_in_the_middle_of_its_parts_is_not_remembered() -> None:
    session, ear, _ = listen(calls=1, is_loaded=True)
    session.data_received(result(1, b"[1,", RESULT | MORE) + error(1) + frame(DATA_OUT, 1, b"2]"))
    assert [what[1] for what in ear.heard] == ["raised"]


def test_of_a_call_that_is_forgotten_no_part_is_kept() -> None:
    session, _, _ = listen(calls=1, is_loaded=True)
    session.data_received(result(1, bytes(RESULT_BYTES), RESULT | MORE))
    session.forget(1)
    assert session._parts == {}


# What we hear, told wrong


WRONG = {
    "an unknown kind": (frame(0x33, 1), "unknown"),
    "a kind of ours": (frame(CALL, 1), "unknown"),
    "a second greeting": (HELLO_FRAME, "too late"),
    "a second loading": (LOADED_FRAME, "too late"),
    "a late failure to load": (error(0), "too late"),
    "a result too short for its times": (frame(RESULT, 1, b"short"), "malformed"),
    "an exit too short": (frame(EXITED, 1, b"short"), "malformed"),
    "an error that is not JSON": (error(1, b"{"), "malformed"),
    "an error of the wrong shape": (error(1, b'{"type":1,"message":[]}'), "malformed"),
    "an error that is not UTF-8": (error(1, b'{"type":"\xff","message":""}'), "malformed"),
    "a part of nothing": (frame(DATA_OUT, 1, b"x"), "not begun"),
    "parts that are too much": (
        result(1, b"", RESULT | MORE) + frame(DATA_OUT | MORE, 1, bytes(RESULT_BYTES + 1)),
        "more than 4096 bytes",
    ),
    "a frame that is too long": (HEADER.pack(RESULT_BYTES + SLACK + 1, RESULT, 1), "more than the"),
    "a frame of four gigabytes": (HEADER.pack(0xFFFFFFFF, RESULT, 1), "more than the"),
}


FLOODS = {
    "logs of nobody": frame(LOG, 77, b"\1x"),
    "logs of nothing": frame(LOG, 1),
    "logs of single bytes": frame(LOG, 1, b"\1x"),
    "results of nobody": frame(RESULT, 77),
    "errors of nobody": error(77),
    "endings of nobody": frame(EXITED, 77, EXIT.pack(0, -1, 0)),
    "parts of nobody": frame(DATA_OUT | MORE, 77, b"x"),
    "parts of nothing": result(1, b"", RESULT | MORE) + frame(DATA_OUT | MORE, 1),
    "results begun again": result(1, b"x" * RESULT_BYTES, RESULT | MORE),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_that_ends_no_call_ends_the_session(flood: str) -> None:
    session, ear, line = listen(calls=1, is_loaded=True)
    some = FLOODS[flood] * 100  # as many as are heard at once
    for _ in range(10_000):
        if not line.is_aborted:
            session.data_received(some)
    assert line.is_aborted
    assert ear.heard[-1] == ("session_ended", "a flood of frames that end no call")


def test_many_frames_at_once_are_heard_a_few_in_each_turn() -> None:
    """Others are heard in between, and nothing more is read meanwhile."""
    session, ear, line = listen(calls=1, is_loaded=True)
    frames = 3 * FRAMES_AT_ONCE + 1
    session.data_received(frame(LOG, 1, b"\x01x") * frames + result(1, b"1"))
    for turn in (1, 2, 3):
        assert (len(ear.heard), line.is_paused) == (turn * FRAMES_AT_ONCE, True)
        line.turn()
    assert (len(ear.heard), line.is_paused) == (frames + 1, False)
    assert ear.heard[-1] == (1, "answered", 7, 5, b"1")


def test_what_was_read_before_the_end_is_heard_however_much_it_is() -> None:
    session, ear, line = listen(calls=1, is_loaded=True)
    session.data_received(frame(LOG, 1, b"\x01x") * 2 * FRAMES_AT_ONCE + result(1, b"1"))
    assert line.is_paused
    session.connection_lost(None)
    line.turn()
    assert ear.heard[-2:] == [(1, "answered", 7, 5, b"1"), ("session_ended", "")]


def test_what_is_said_aside_is_counted_from_each_call_anew() -> None:
    session, ear, line = listen(calls=1, is_loaded=True)
    for _ in range(1000):
        session.data_received(frame(LOG, 77, b"\1x" * 1000) * 100)
        session.call(ear.of_call(2), bytes(16), 1000, b"")
    assert not line.is_aborted


@pytest.mark.parametrize("wrong", WRONG)
def test_a_lie_ends_the_session_with_the_reason(wrong: str) -> None:
    said, reason = WRONG[wrong]
    session, ear, line = listen(calls=1, is_loaded=True)
    session.data_received(said + result(1, b"[]"))
    assert [what[0] for what in ear.heard] == ["session_ended"]
    assert reason in str(ear.heard[0][1])
    assert line.is_aborted


@pytest.mark.parametrize(
    "early", [LOADED_FRAME, result(1, b"[]"), error(0), error(1), frame(EXITED, 1, EXIT.pack(0, 0, 0))]
)
def test_nothing_comes_before_the_greeting(early: bytes) -> None:
    session, ear, _ = listen(calls=1)
    session.data_received(early + HELLO_FRAME)
    assert [what[0] for what in ear.heard] == ["session_ended"]


@pytest.mark.parametrize("early", [result(1, b"[]"), error(1), frame(LOG, 1, b"\1x")])
def test_no_call_ends_before_the_function_is_loaded(early: bytes) -> None:
    session, ear, _ = listen(calls=1)
    session.data_received(HELLO_FRAME + early + LOADED_FRAME)
    assert [what[0] for what in ear.heard] == ["greeted", "session_ended"]


@pytest.mark.parametrize("hello", [b'{"wire":2}', b"{}", b"[]", b"", b'{"wire":"1"}', b"\xff"])
def test_another_version_or_none_ends_the_session(hello: bytes) -> None:
    session, ear, _ = listen()
    session.data_received(frame(HELLO, 0, hello))
    assert [what[0] for what in ear.heard] == ["session_ended"]


def test_an_error_nested_beyond_measure_ends_the_session_and_not_the_node() -> None:
    session, ear, _ = listen(calls=1, is_loaded=True)
    deep = b"[" * 300_000 + b"]" * 300_000
    session.data_received(error(1, b'{"type":"T","message":"m","more":' + deep + b"}"))
    assert [what[0] for what in ear.heard] == ["session_ended"]


def test_a_huge_error_ends_its_call_only() -> None:
    session, ear, _ = listen(calls=2, is_loaded=True)
    body = b'{"type":"T","message":"' + b"x" * (SLACK + 10) + b'"}'
    session.data_received(error(1, body) + result(2, b"[]"))
    assert [what[:2] for what in ear.heard] == [(1, "raised"), (2, "answered")]


def test_what_a_listener_gets_wrong_is_not_taken_for_a_lie() -> None:
    session, ear, _ = listen(is_loaded=True)
    listener = ear.of_call(1)

    class Clumsy(CallEar):
        def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
            raise KeyError("a fault of ours")

    number = session.call(Clumsy(1, listener.heard), bytes(16), 1, b"")
    with pytest.raises(KeyError):
        session.data_received(result(number, b"[]"))
    assert ear.heard == []


def test_the_end_of_the_stream_is_heard_once_without_a_reason() -> None:
    session, ear, _ = listen(calls=1, is_loaded=True)
    session.connection_lost(ConnectionResetError())
    session.connection_lost(None)
    assert ear.heard == [("session_ended", "")]


def test_a_listener_may_close_the_session_while_it_hears() -> None:
    session, ear, _ = listen(is_loaded=True)

    class Closing(CallEar):
        def answered(self, run_ns: int, cpu_ns: int, result: bytes) -> None:
            super().answered(run_ns, cpu_ns, result)
            session.close()

    for name in (1, 2):
        session.call(Closing(name, ear.heard), bytes(16), 1, b"")
    session.data_received(result(1, b"[]") + result(2, b"[]"))
    assert [what[0] for what in ear.heard] == [1]


# Every order and every split

numbers = st.integers(1, 4)
texts = st.text(max_size=30)
payloads = st.binary(max_size=200)
good_frames = st.one_of(
    st.builds(result, numbers, payloads),
    st.builds(
        lambda number, *words: error(
            number, msgspec.json.encode(dict(zip(("type", "message", "stack"), words, strict=True)))
        ),
        numbers,
        texts,
        texts,
        texts,
    ),
    st.builds(
        lambda number, *ends: frame(EXITED, number, EXIT.pack(*ends)), numbers, *[st.integers(0, 255)] * 3
    ),
    st.builds(
        lambda number, stream, data: frame(LOG, number, bytes([stream]) + data),
        numbers,
        st.integers(1, 2),
        payloads,
    ),
)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The data cut at these places, each taken modulo its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        if start < end:
            yield data[start:end]


def hear(parts: Iterator[bytes]) -> list[tuple[object, ...]]:
    session, ear, line = listen(calls=4)
    for part in parts:
        if not line.is_aborted:
            session.data_received(part)
        assert len(session._buffer) <= RESULT_BYTES + SLACK + HEADER.size
    return ear.heard


@given(st.lists(good_frames, max_size=12), st.lists(st.integers(0, 10_000), max_size=30))
def test_how_the_bytes_are_cut_makes_no_difference(frames: list[bytes], cuts: list[int]) -> None:
    data = HELLO_FRAME + LOADED_FRAME + b"".join(frames)
    whole = hear(iter([data]))
    assert hear(pieces(data, cuts)) == whole
    assert hear(data[at : at + 1] for at in range(len(data))) == whole
    assert not [what for what in whole if what[0] == "session_ended"]


@given(
    st.lists(
        st.one_of(good_frames, st.binary(max_size=60), st.sampled_from([HELLO_FRAME, LOADED_FRAME])),
        max_size=12,
    ),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_no_call_ends_twice_and_nothing_follows_the_end(said: list[bytes], cuts: list[int]) -> None:
    for data in (b"".join(said), HELLO_FRAME + LOADED_FRAME + b"".join(said)):
        heard = hear(pieces(data, cuts))
        ends = [what[0] for what in heard if what[1] in ("answered", "raised", "exited")]
        assert len(ends) == len(set(ends))
        assert "session_ended" not in [what[0] for what in heard[:-1]]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_no_bytes_whatever_raise(data: bytes, cuts: list[int]) -> None:
    hear(pieces(data, cuts))
    hear(pieces(HELLO_FRAME + LOADED_FRAME + data, cuts))


kinds = st.one_of(st.integers(0, 255), st.sampled_from([HELLO, LOADED, RESULT, ERROR, LOG, EXITED, DATA_OUT]))
bodies = st.one_of(
    st.binary(max_size=80),
    st.builds(
        bytes.__add__,
        st.just(bytes(16)),
        st.one_of(st.binary(max_size=60), st.from_regex(rb'\{"type":".*"\}')),
    ),
)


@given(kinds, st.integers(0, 5), bodies)
def test_any_payload_of_any_kind_is_borne(kind: int, number: int, payload: bytes) -> None:
    hear(iter([HELLO_FRAME + LOADED_FRAME + frame(kind, number, payload)]))
    hear(iter([HELLO_FRAME + frame(kind, number, payload)]))
    hear(iter([frame(kind, number, payload)]))


def test_a_header_that_promises_much_takes_no_memory() -> None:
    session, ear, _ = listen(calls=1, is_loaded=True)
    session.data_received(HEADER.pack(RESULT_BYTES + SLACK, RESULT, 1) + b"x")
    assert len(session._buffer) == HEADER.size + 1
    assert ear.heard == []


def test_the_state_can_be_printed() -> None:
    session, _, _ = listen(calls=2)
    assert repr(session) == "<Session open, 2 calls in flight>"
    session.close()
    assert repr(session) == "<Session over, 0 calls in flight>"
