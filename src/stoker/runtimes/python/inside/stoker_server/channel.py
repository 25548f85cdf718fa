"""The server's end of the wire: frames on one blocking stream socket (`docs/wire.md`)."""

from __future__ import annotations

# By its own name: what `socket` adds to it takes a start longer than all of this.
import _socket
import json
import os
import struct

LOAD, CALL, CANCEL, DATA_IN, QUEUED, MORE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x40
HELLO, LOADED, RESULT, ERROR, LOG, EXITED = 0x81, 0x82, 0x83, 0x84, 0x85, 0x87
HEADER = struct.Struct("!IBI")
_ANSWER = struct.Struct("!IBIQQ")
_NUMBERS = 16  # bytes of the two times in front of a result or an error

PERMITS_FD = 4
WIRE = 1

CHUNK = 64 * 1024
MAX_TYPE, MAX_MESSAGE, MAX_STACK = 200, 32_000, 128_000  # six bytes a character stay below the node's 1 MiB


class EndOfStream(Exception):
    """The node has closed the channel."""


class Channel:
    """Frames in and out. Everything it is told to send is sent when the call returns."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = b""
        self._parts: dict[int, list[bytes]] = {}

    def receive(self) -> tuple[int, int, bytes]:
        """Wait for the next frame: its kind, its call and its payload, parts joined."""
        frame = self.take()
        while frame is None:
            self.fill()
            frame = self.take()
        return frame

    def receive_with_file(self) -> tuple[tuple[int, int, bytes], int]:
        """Wait for the first frame; with the file that came with it, or -1."""
        line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, self.fd)
        try:
            self._buffer, rights, _, _ = line.recvmsg(CHUNK, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            self._buffer, rights = b"", []
        line.detach()
        if not self._buffer:
            raise EndOfStream
        return self.receive(), struct.unpack("=i", rights[0][2][:4])[0] if rights else -1

    def send_with_file(self, data: bytes, file: int) -> None:
        line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, self.fd)
        line.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=i", file))])
        line.detach()

    def exchange_unread(self, data: bytes) -> bytes:
        """What was read and is no whole frame yet, or not yet taken; from here on it is `data`."""
        unread, self._buffer = self._buffer, data
        return unread

    def take(self) -> tuple[int, int, bytes] | None:
        """The next frame if it has been read already."""
        data = self._buffer
        while len(data) >= 9:
            length, kind, number = HEADER.unpack_from(data)
            end = 9 + length
            if len(data) < end:
                break
            payload = data[9:end]
            self._buffer = data = data[end:]
            if not (kind & MORE or kind == DATA_IN):
                return kind, number, payload
            joined = self._join(kind, number, payload)
            if joined is not None:
                return CALL, number, joined
        return None

    def fill(self) -> None:
        """Read what is there, and the rest of a frame that has begun."""
        self._buffer += self._read(CHUNK)
        if len(self._buffer) >= 9:
            missing = 9 + HEADER.unpack_from(self._buffer)[0] - len(self._buffer)
            if missing > 0:
                self._fill_exactly(missing)

    def _fill_exactly(self, missing: int) -> None:
        chunks = [self._buffer]
        while missing > 0:
            chunks.append(self._read(min(missing, 4 * CHUNK)))
            missing -= len(chunks[-1])
        self._buffer = b"".join(chunks)

    def _read(self, size: int) -> bytes:
        try:
            data = os.read(self.fd, size)
        except ConnectionError:
            data = b""
        if not data:
            raise EndOfStream
        return data

    def _join(self, kind: int, number: int, payload: bytes) -> bytes | None:
        parts = self._parts.setdefault(number, [])
        parts.append(payload)
        if kind & MORE:
            return None
        del self._parts[number]
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        try:
            sent = os.write(self.fd, data)
            while sent < len(data):
                sent += os.write(self.fd, memoryview(data)[sent:])
        except ConnectionError:
            raise EndOfStream from None


def has_permits() -> bool:
    """Whether this sandbox has a pipe of permits; what the function starts does not inherit it."""
    try:
        os.set_inheritable(PERMITS_FD, False)
    except OSError:
        return False
    return True


def take_permit() -> bool:
    """Whether the node still wants the queued call that is next."""
    try:
        os.read(PERMITS_FD, 8)
    except BlockingIOError:
        return False
    return True


def write_frame(kind: int, number: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), kind, number) + payload


def write_result(number: int, run_ns: int, cpu_ns: int, result: bytes) -> bytes:
    return _ANSWER.pack(_NUMBERS + len(result), RESULT, number, run_ns, cpu_ns) + result


def write_error(number: int, run_ns: int, cpu_ns: int, error: tuple[str, str, str], errno: int = 0) -> bytes:
    """The frame for an error's type, message and stack, each cut to what the node takes, and its errno."""
    kind, message, stack = error
    body: dict[str, object] = {"type": kind[:MAX_TYPE], "message": message[:MAX_MESSAGE]}
    body["stack"] = stack[-MAX_STACK:]
    if errno:
        body["errno"] = errno
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return _ANSWER.pack(_NUMBERS + len(text), ERROR, number, run_ns, cpu_ns) + text
