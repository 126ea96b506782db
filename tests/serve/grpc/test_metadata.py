"""Metadata of any bytes, as no honest client sends it: HTTP/2 frames made by hand, on a bare connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.serve.fake import FakeEngine
from tests.serve.grpc.frames import AWAY, DATA, ENDS_STREAM, HEADERS, RESET, Wire, begin, frame, head, message
from tests.serve.grpc.test_service import FILE, arrays, files, infer
from tests.serve.processes import wait_until
from tests.serve.running import Running, running

from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.grpc.service import INFERENCE

LIVE = pb.ServerLiveResponse(live=True).SerializeToString()


def exchange(
    server: Running, method: str, body: bytes, *more: tuple[bytes, bytes], path: bytes | None = None
) -> list[tuple[int, bytes]]:
    """Call a method with these metadata, and return the (kind, body) of each frame until the call has ended."""
    found = []
    with Wire(server.addresses.grpc) as wire:
        wire.send(begin(1, head(method, *more, path=path)) + frame(DATA, ENDS_STREAM, 1, message(body)))
        for kind, flags, _, content in wire.frames():
            found.append((kind, content))
            if kind in (RESET, AWAY) or (kind in (DATA, HEADERS) and flags & ENDS_STREAM):
                break
    return found


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
        assert under_way.result(60), "nobody else noticed"
        engine.hold = None
        assert arrays(infer(channel, files(FILE)))["num_detections"].tolist() == [1]


def test_the_frames_made_by_hand_are_those_of_a_client(server: Running) -> None:
    found = exchange(server, "ServerLive", pb.ServerLiveRequest().SerializeToString())
    assert (DATA, message(LIVE)) in found
