"""HTTP/2 made by hand, for what no honest client of gRPC sends."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from eyas.serve.grpc.service import INFERENCE

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, AWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ENDS_STREAM, ENDS_HEADERS, ACKNOWLEDGES = 1, 4, 1
NO_WINDOW = struct.pack(">HI", 4, 0)  # a setting: send me no data
BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field as HPACK's literal without indexing, not compressed."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if (rest := len(text) - 127) < 0:
        return bytes([len(text)])
    found = [127]
    while rest >= 128:
        found.append(rest % 128 + 128)
        rest //= 128
    return bytes([*found, rest])


def head(method: str, *more: tuple[bytes, bytes], path: bytes | None = None) -> bytes:
    """Return the header fields of a call."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{INFERENCE}/{method}".encode() if path is None else path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return b"".join(field(*each) for each in [*fields, *more])


def message(body: bytes, flag: int = 0) -> bytes:
    """Return a message as gRPC frames it; the flag 1 says that it is compressed."""
    return bytes([flag]) + struct.pack(">I", len(body)) + body


def begin(stream: int, block: bytes, *, ends: bool = False) -> bytes:
    """Return the frames of a call's header fields."""
    parts = [block[start : start + 16_384] for start in range(0, len(block), 16_384)]
    last = len(parts) - 1
    return b"".join(
        frame(
            CONTINUATION if number else HEADERS,
            ENDS_HEADERS * (number == last) | ENDS_STREAM * (ends and not number),
            stream,
            part,
        )
        for number, part in enumerate(parts)
    )


class Wire:
    """A bare connection, which acknowledges no settings, so that those of the server never count."""

    def __init__(self, address: str, settings: bytes = b"") -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._incoming = self._socket.makefile("rb")
        self.send(BEGIN + frame(SETTINGS, 0, 0, settings))

    def send(self, data: bytes) -> None:
        """Send, as far as the server lets us."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (kind, flags, stream, body) of what comes, until the server closes the connection."""
        with contextlib.suppress(ConnectionError):
            while len(start := self._incoming.read(9)) == 9:
                body = self._incoming.read(int.from_bytes(start[:3], "big"))
                if start[3] == PING and not start[4] & ACKNOWLEDGES:
                    self.send(frame(PING, ACKNOWLEDGES, 0, body))
                yield start[3], start[4], int.from_bytes(start[5:], "big"), body

    def end(self) -> bytes:
        """Return the fields that end the first call that ends; nothing where it, or the connection, was reset."""
        for kind, flags, _, body in self.frames():
            if kind == HEADERS and flags & ENDS_STREAM:
                return body
            if kind in (RESET, AWAY):
                break
        return b""

    def status(self) -> int | None:
        """Return gRPC's status of the first call that ends on this connection."""
        _, found, rest = self.end().partition(b"grpc-status")
        return int(rest[1 : 1 + rest[0]]) if found else None

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._incoming.close()
        self._socket.close()
