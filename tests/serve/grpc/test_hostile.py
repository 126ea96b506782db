"""What no honest client of gRPC does: each ends with a status, costs little, and keeps nobody else out."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator

import grpc
import pytest
from tests.serve.fake import FakeEngine
from tests.serve.grpc.frames import (
    CONTINUATION,
    DATA,
    ENDS_STREAM,
    HEADERS,
    NO_WINDOW,
    PING,
    PRIORITY,
    RESET,
    SETTINGS,
    WINDOW,
    Wire,
    begin,
    frame,
    head,
    message,
)
from tests.serve.grpc.test_service import FILE, arrays, files, infer
from tests.serve.processes import wait_until
from tests.serve.running import Running, running

from eyas.serve.grpc import admission as door
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.limits import Limits

OK, INVALID, SLOW, EXHAUSTED, UNKNOWN_METHOD, INTERNAL = 0, 3, 4, 8, 12, 13
BODY = 200_000
MOST = 8
CANCEL = struct.pack(">I", 8)
LIVE = pb.ServerLiveRequest().SerializeToString()
INFER = files(FILE).SerializeToString()
GZIP = (b"grpc-encoding", b"gzip")


def answered(server: Running) -> bool:
    """Whether an honest client is answered."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(server.addresses.grpc, own) as channel:
        try:
            return arrays(infer(channel, files(FILE)))["num_detections"].tolist() == [1]
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
            return False


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeEngine, limits=Limits(body=BODY)) as started:
        yield started


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    """A server that fills soon."""
    with running(FakeEngine, limits=Limits(connections=MOST)) as started:
        yield started


ODD = {
    "no message": (begin(1, head("ModelInfer"), ends=True), INVALID),
    "half a message": (begin(1, head("ModelInfer")) + frame(DATA, ENDS_STREAM, 1, message(INFER)[:-9]), INVALID),
    "half a length": (begin(1, head("ModelInfer")) + frame(DATA, ENDS_STREAM, 1, b"\0\0"), INVALID),
    "no message to watch": (begin(1, head("", path=b"/grpc.health.v1.Health/Watch"), ends=True), INVALID),
    "4 GB are promised": (begin(1, head("ModelInfer")) + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff"), EXHAUSTED),
    "compressed, not said how": (begin(1, head("ModelInfer")) + frame(DATA, 1, 1, message(b"abc", 1)), INTERNAL),
    "compressed rubbish": (begin(1, head("ModelInfer", GZIP)) + frame(DATA, 1, 1, message(b"abc", 1)), INTERNAL),
    "compressed bomb": (
        begin(1, head("ModelInfer", GZIP)) + frame(DATA, 1, 1, message(gzip.compress(bytes(10 * BODY)), 1)),
        EXHAUSTED,
    ),
    # Of headers beyond its limit gRPC says that they are too many, or that the message is missing: what comes first.
    "100 kB of metadata": (begin(1, head("ServerLive", (b"x-a", b"a" * 100_000))), (INVALID, EXHAUSTED)),
    "ten thousand fields": (
        begin(1, head("ServerLive", *[(b"x-%d" % n, b"a") for n in range(10_000)])),
        (INVALID, EXHAUSTED),
    ),
    "reflection": (
        begin(1, head("", path=b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")),
        UNKNOWN_METHOD,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_call_ends_with_a_status(server: Running, name: str) -> None:
    frames, expected = ODD[name]
    with Wire(server.addresses.grpc) as wire:
        wire.send(frames)
        assert wire.status() in (expected if isinstance(expected, tuple) else (expected,))
    assert answered(server)


def reset(number: int) -> bytes:
    return begin(number, head("ModelInfer")) + frame(DATA, 1, number, message(INFER)) + frame(RESET, 0, number, CANCEL)


FLOODS = {
    "settings": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) * 5_000,
    "pings": frame(PING, 0, 0, bytes(8)) * 5_000,
    "priorities": frame(PRIORITY, 0, 1, b"\0\0\0\0\1") * 5_000,
    "windows": frame(WINDOW, 0, 0, struct.pack(">I", 1)) * 5_000,
    "unknown frames": frame(77, 0, 0, bytes(100)) * 5_000,
    "resets": b"".join(reset(number) for number in range(1, 1_000, 2)),
    "continuations": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 5_000,
    "empty data": begin(1, head("ModelStreamInfer")) + frame(DATA, 0, 1) * 5_000,
    "empty messages": begin(1, head("ModelStreamInfer")) + frame(DATA, 0, 1, message(b"") * 100) * 10,
    "unknown methods": b"".join(begin(number, head("Nothing")) for number in range(1, 4_000, 2)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_keeps_nobody_out(server: Running, name: str) -> None:
    with Wire(server.addresses.grpc) as wire:
        wire.send(FLOODS[name])
        assert answered(server)
    assert answered(server)


def test_a_call_that_says_nothing_ends() -> None:
    with running(FakeEngine, limits=Limits(body_seconds=0.1)) as server, Wire(server.addresses.grpc) as wire:
        wire.send(begin(1, head("ModelInfer")))
        assert wire.status() == SLOW


def test_calls_that_say_nothing_make_way(small: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with Wire(small.addresses.grpc) as wire:
        monkeypatch.setattr(door, "PATIENCE", 60.0)
        wire.send(b"".join(begin(number, head("ModelInfer")) for number in range(1, 2 * MOST, 2)))
        assert wait_until(lambda: not answered(small), 10.0)
        monkeypatch.setattr(door, "PATIENCE", 0.0)
        assert answered(small)
        assert wire.status() == SLOW, "who had waited longest"


def test_answers_that_nobody_takes_hold_their_places(small: Running) -> None:
    with Wire(small.addresses.grpc, NO_WINDOW) as wire:
        for number in range(1, 2 * MOST, 2):
            wire.send(begin(number, head("ModelInfer")) + frame(DATA, ENDS_STREAM, number, message(INFER)))
        assert wait_until(lambda: not answered(small), 10.0), "so that there are no more of them"
        for number in range(1, 2 * MOST, 2):
            wire.send(frame(WINDOW, 0, number, struct.pack(">I", 65_535)))
        assert wire.status() == OK
    assert wait_until(lambda: answered(small), 10.0)


def test_so_many_connections_and_no_more(small: Running) -> None:
    wires = [Wire(small.addresses.grpc) for _ in range(MOST)]
    assert wait_until(lambda: not answered(small), 10.0)
    for each in wires:
        each.__exit__()
    assert wait_until(lambda: answered(small), 10.0)
