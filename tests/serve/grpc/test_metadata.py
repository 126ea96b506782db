"""Metadata of any bytes, as no honest client sends it: HTTP/2 frames made by hand, on a bare connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.serve.fake import FakeEngine
from tests.serve.grpc.test_service import FILE, arrays, files, infer
from tests.serve.processes import wait_until
from tests.serve.running import Running, running

from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.grpc.service import INFERENCE

DATA, HEADERS, RESET, SETTINGS, PING, AWAY = 0, 1, 3, 4, 6, 7
ENDS_STREAM, ENDS_HEADERS, ACKNOWLEDGES = 1, 4, 1
LIVE = pb.ServerLiveResponse(live=True).SerializeToString()


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field as HPACK's literal without indexing, not compressed."""
    assert len(name) < 127 and len(value) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def exchange(
    server: Running, method: str, message: bytes, *more: tuple[bytes, bytes], path: bytes | None = None
) -> list[tuple[int, bytes]]:
    """Call a method with these metadata, and return the (kind, body) of each frame until the call has ended."""
    head = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{INFERENCE}/{method}".encode() if path is None else path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    block = b"".join(field(*each) for each in [*head, *more])
    body = b"\0" + struct.pack(">I", len(message)) + message
    host, _, port = server.addresses.grpc.rpartition(":")
    found = []
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0)
            + frame(HEADERS, ENDS_HEADERS, 1, block)
            + frame(DATA, ENDS_STREAM, 1, body)
        )
        for kind, flags, content in frames(connection):
            if kind == SETTINGS and not flags & ACKNOWLEDGES:
                connection.sendall(frame(SETTINGS, ACKNOWLEDGES, 0))
            elif kind == PING and not flags & ACKNOWLEDGES:
                connection.sendall(frame(PING, ACKNOWLEDGES, 0, content))
            found.append((kind, content))
            if kind in (RESET, AWAY) or (kind in (DATA, HEADERS) and flags & ENDS_STREAM):
                break
    return found


def frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, flags, body) of what the server sends, until it closes the connection."""
    with connection.makefile("rb") as incoming:
        while len(head := incoming.read(9)) == 9:
            length = int.from_bytes(head[:3], "big")
            yield head[3], head[4], incoming.read(length)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeEngine) as started:
        yield started


ODD = [
    (b"traceparent", b"\xff\xfe\xfa"),
    (b"traceparent", b"00-\xc3\x28-\x00-01"),
    (b"x-request-id", b"\xf0\x28\x8c\xbc"),
    (b"x-request-id", b"a\x00b"),
    (b"authorization", b"Bearer \xff\xff"),
    (b"x-api-key", b"\xed\xa0\x80"),  # half of a surrogate pair
    (b"user-agent", b"\x80\x81"),
    (b"grpc-timeout", b"\xff\xffS"),
    (b"grpc-timeout", b"-1S"),
    (b"grpc-encoding", b"\xff"),
    (b"content-type", b"\xff"),
    (b"x-\xff\xfe", b"a"),
    (b"x-\x00", b"a"),
    (b"X-Upper", b"a"),
    (b"x-some-bin", b"!!no base64!!"),
    (b"x-some-bin", b"\xff\xfe"),
    (b":unknown", b"\xff"),
    (b"", b"\xff"),
]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_odd_bytes_end_their_call_at_the_most(server: Running, name: bytes, value: bytes) -> None:
    found = exchange(server, "ServerLive", pb.ServerLiveRequest().SerializeToString(), (name, value))
    last, _ = found[-1]
    assert last in (HEADERS, RESET, AWAY), "it was answered, or refused"
    with grpc.insecure_channel(server.addresses.grpc) as channel:
        assert arrays(infer(channel, files(FILE)))["num_detections"].tolist() == [1]


@pytest.mark.parametrize("path", [b"/\xff", b"", b"/", b"no slash", b"/a/b/c", f"/{INFERENCE}/ServerLive\xff".encode()])
def test_a_path_of_odd_bytes_is_refused_and_cancels_nobody(server: Running, path: bytes) -> None:
    engine: Any = server.server.engine
    engine.hold = server.call(asyncio.Event)
    with grpc.insecure_channel(server.addresses.grpc) as channel:
        make = channel.unary_unary(f"/{INFERENCE}/ModelInfer", pb.ModelInferRequest.SerializeToString)
        seen = len(engine.seen)
        under_way = make.future(files(FILE))
        assert wait_until(lambda: len(engine.seen) > seen)
        *_, (kind, block) = exchange(server, "", b"", path=path)
        assert kind == RESET or b"grpc-status\x0212" in block, "UNIMPLEMENTED"
        server.call(engine.hold.set)
        assert under_way.result(10), "nobody else noticed"
        engine.hold = None
        assert arrays(infer(channel, files(FILE)))["num_detections"].tolist() == [1]


def test_the_frames_made_by_hand_are_those_of_a_client(server: Running) -> None:
    found = exchange(server, "ServerLive", pb.ServerLiveRequest().SerializeToString())
    assert (DATA, b"\0" + struct.pack(">I", len(LIVE)) + LIVE) in found
