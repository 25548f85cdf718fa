"""The server's end of the wire under every order and every split."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.runtimes.python.inside.stoker_server.channel import (
    CALL,
    DATA_IN,
    MORE,
    Channel,
    EndOfStream,
    write_error,
    write_frame,
)
from stoker.runtimes.wire import HEADER, MAX_ERROR, TIMES

bodies = st.binary(max_size=100)
whole = st.tuples(st.sampled_from([0x01, CALL, 0x03, 0x05, 0x33]), st.integers(0, 3), bodies)


def frames_of(said: bytes, cuts: list[int]) -> list[tuple[int, int, bytes]]:
    """What a channel hears of these bytes, written in pieces."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs.fileno())
        found = []
        for piece in pieces(said, cuts):
            ours.sendall(piece)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EndOfStream):
            while True:
                found.append(channel.receive())
    return found


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        if start < end:
            yield data[start:end]


@given(st.lists(whole, max_size=20), st.lists(st.integers(0, 3000), max_size=20))
def test_frames_are_heard_as_they_were_said(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    assert frames_of(b"".join(write_frame(*frame) for frame in frames), cuts) == frames


@given(st.lists(bodies, min_size=2, max_size=6), st.lists(st.integers(0, 900), max_size=9))
def test_parts_are_joined_among_other_calls(parts: list[bytes], cuts: list[int]) -> None:
    kinds = [CALL | MORE, *[DATA_IN | MORE] * (len(parts) - 2), DATA_IN]
    said = b"".join(
        write_frame(kind, 1, part) + write_frame(CALL, 2, part)
        for kind, part in zip(kinds, parts, strict=True)
    )
    heard = frames_of(said, cuts)
    assert [payload for _, number, payload in heard if number == 2] == parts
    assert [frame for frame in heard if frame[1] == 1] == [(CALL, 1, b"".join(parts))]


def test_a_frame_larger_than_every_buffer_is_heard_whole() -> None:
    ours, theirs = socket.socketpair()
    body = bytes(range(256)) * 20_000
    with ours, theirs:
        sending, hearing = Channel(ours.fileno()), Channel(theirs.fileno())
        first = write_frame(CALL, 1, b"")
        ours.setblocking(False)
        said = first + write_frame(CALL, 2, body)
        sent = ours.send(said)
        assert hearing.receive() == (CALL, 1, b"")
        while sent < len(said):  # the rest, as fast as it is taken
            ours.setblocking(True)
            hearing._buffer += hearing._read(65536)
            sent += ours.send(said[sent : sent + 65536])
        assert hearing.receive() == (CALL, 2, body)
        assert sending.take() is None


def test_the_end_of_the_other_side_is_an_end_of_the_stream() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(theirs.fileno())
        ours.close()
        with pytest.raises(EndOfStream):
            channel.send(b"x")
        with pytest.raises(EndOfStream):
            channel.receive()


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_any_error_can_be_told(kind: str, message: str, stack: str) -> None:
    frame = write_error(3, 1, 2, (kind, message, stack))
    length, _, number = HEADER.unpack_from(frame)
    assert (length, number) == (len(frame) - HEADER.size, 3)
    assert TIMES.unpack_from(frame, HEADER.size) == (1, 2)


@pytest.mark.parametrize("letter", ["x", "\0", "\ud800", "\U0001f600", '"'])
def test_a_huge_error_is_cut_to_what_the_node_takes(letter: str) -> None:
    frame = write_error(1, 0, 0, (letter * 10**6, letter * 10**6, letter * 10**6))
    assert len(frame) <= MAX_ERROR
