"""Clients that hold on to what they take: uploads that stand still, idle streams, half-sent frames, unread answers."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc
import httpx2 as httpx
import pytest
from tests.serve.fake import FakeEngine, encoded
from tests.serve.grpc.frames import DATA, Wire, begin, frame, head
from tests.serve.grpc.test_service import arrays, files, infer
from tests.serve.processes import wait_until
from tests.serve.running import Running, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from eyas.serve import budget
from eyas.serve.grpc import admission
from eyas.serve.http import connections
from eyas.serve.limits import Limits

FILE = encoded()
KIND = {"content-type": "image/png"}
MIB = 2**20
BODY, BODIES, MOST = MIB, 8 * MIB, 24
LIMITS = Limits(body=BODY, bodies=BODIES, connections=MOST, body_seconds=60.0, body_patience=60.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeEngine, limits=LIMITS) as started:
        yield started


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is idle gives way at once."""
    for module, name in ((budget, "PATIENCE"), (connections, "PATIENCE"), (admission, "SILENCE")):
        monkeypatch.setattr(module, name, 0.0)


@contextmanager
def bare(server: Running, data: bytes) -> Iterator[socket.socket]:
    host, _, port = server.addresses.rest.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        yield connection


def said(connection: socket.socket, seconds: float = 10.0) -> bytes:
    """Return what the server says until it closes, or says nothing for so long."""
    found = b""
    try:
        while select.select([connection], [], [], seconds)[0] and (data := connection.recv(65_536)):
            found += data
    except ConnectionError:
        pass
    return found


def upload(size: int) -> bytes:
    head = f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + bytes(size - 1)


def used(server: Running) -> int:
    return server.server.service.budget.used


def emptied(server: Running) -> bool:
    return wait_until(lambda: used(server) == 0, 10.0)


def test_uploads_that_stand_still_hold_no_more_than_there_is(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE", 60.0)
    with ExitStack() as stack:
        held = [stack.enter_context(bare(server, upload(BODY))) for _ in range(4)]
        assert wait_until(lambda: used(server) > 3.9 * MIB, 10.0)
        answer = said(stack.enter_context(bare(server, upload(BODY))))
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after" in answer, "a client has half of the budget"
        assert used(server) <= BODIES // 2
        monkeypatch.setattr(budget, "PATIENCE", 0.0)
        assert httpx.post(f"{server.url}/v1/detect", content=FILE, headers=KIND).status_code == 200
        assert said(held[0]).startswith(b"HTTP/1.1 503"), "who has stood still for the longest time gives way"
    assert emptied(server)


def test_half_sent_frames_are_held_in_the_same_budget(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE", 60.0)
    upgrade = (
        "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    half = b"\x82\xff" + (BODY - 1).to_bytes(8, "big") + bytes(4) + bytes(BODY - 100)
    with ExitStack() as stack:
        for number in range(1, 5):
            stream = stack.enter_context(bare(server, upgrade.encode()))
            assert stream.recv(1000).startswith(b"HTTP/1.1 101")
            stream.sendall(half)
            assert wait_until(lambda: used(server) > 0.99 * number * MIB, 10.0)  # noqa: B023
        stream = stack.enter_context(bare(server, upgrade.encode()))
        assert stream.recv(1000).startswith(b"HTTP/1.1 101")
        stream.sendall(half[:100_000])
        assert (1013).to_bytes(2, "big") in said(stream), "a client has half of the budget"
        assert used(server) <= BODIES // 2
    assert emptied(server)


def test_frames_that_were_answered_are_held_no_longer(server: Running) -> None:
    with connect(f"ws://{server.addresses.rest}/v1/stream") as stream:
        for number in range(6):  # together more than a client may have
            stream.send(FILE + bytes(BODY - 1000))
            assert "detections" in json.loads(stream.recv(20)), number
    assert emptied(server)


@pytest.fixture
def held(server: Running) -> Iterator[asyncio.Event]:
    """What the engine waits for before it answers."""
    engine: Any = server.server.engine
    engine.hold = server.call(asyncio.Event)
    yield engine.hold
    server.call(engine.hold.set)
    engine.hold = None


def test_messages_of_grpc_are_held_in_it_too(server: Running, held: asyncio.Event) -> None:
    with grpc.insecure_channel(server.addresses.grpc) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", lambda message: message, lambda data: data
        )
        message = files(FILE + bytes(BODY - 1000)).SerializeToString()
        calls = [method.future(message, timeout=20) for _ in range(6)]
        assert wait_until(lambda: sum(call.done() for call in calls) == 2, 10.0)
        refused = [call for call in calls if call.done()]
        assert {call.code() for call in refused} == {grpc.StatusCode.UNAVAILABLE}
        assert 3.9 * MIB < used(server) <= BODIES // 2
        server.call(held.set)
        assert {call.code() for call in calls if call not in refused} == {grpc.StatusCode.OK}
    assert emptied(server)


def test_a_slow_body_ends_before_its_time_is_over() -> None:
    limits = Limits(body_patience=0.2, body_rate=1e6, body_seconds=60.0)
    with running(FakeEngine, grpc_port=None, limits=limits) as server:
        with bare(server, upload(5000)) as connection:
            answer = said(connection)
        assert answer.startswith(b"HTTP/1.1 408") and b"too slowly" in answer
        with pytest.raises(ConnectionClosed) as caught, connect(f"ws://{server.addresses.rest}/v1/stream") as stream:
            stream.socket.sendall(b"\x82\xfe\x10\x00" + bytes(100))
            stream.recv(20)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008


def test_a_whole_body_that_comes_in_pieces_is_answered() -> None:
    limits = Limits(body_patience=0.2, body_rate=10.0, body_seconds=60.0)
    with running(FakeEngine, grpc_port=None, limits=limits) as server:

        def pieces() -> Iterator[bytes]:
            for at in range(0, len(FILE), 100):
                time.sleep(0.1)
                yield FILE[at : at + 100]

        assert httpx.post(f"{server.url}/v1/detect", content=pieces(), headers=KIND).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"])
def test_probes_are_answered_when_all_places_are_taken(
    server: Running, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 60.0)
    url = f"ws://{server.addresses.rest}/v1/stream"
    with ExitStack() as stack:
        for _ in range(MOST):
            try:
                stack.enter_context(connect(url))
            except InvalidStatus as error:
                assert error.response.status_code == 503
                break
        assert httpx.get(server.url + path).status_code == 200
        refused = httpx.post(f"{server.url}/v1/detect", content=FILE, headers=KIND)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["kind"] == "unavailable"


def test_idle_streams_give_way_to_requests(server: Running, impatient: None) -> None:
    url = f"ws://{server.addresses.rest}/v1/stream"
    with ExitStack() as stack:
        streams = [stack.enter_context(connect(url)) for _ in range(2 * MOST)]
        assert httpx.post(f"{server.url}/v1/detect", content=FILE, headers=KIND).status_code == 200
        with pytest.raises(ConnectionClosed) as caught:
            streams[0].recv(10)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1013
        streams[-1].send(FILE)
        assert json.loads(streams[-1].recv(10))["frame"] == 0, "the newest is still there"


def test_connections_that_ask_nothing_give_way(server: Running, impatient: None) -> None:
    with ExitStack() as stack:
        for _ in range(3 * MOST):
            stack.enter_context(bare(server, b"GET /livez HTTP/1.1\r\n"))
        assert httpx.post(f"{server.url}/v1/detect", content=FILE, headers=KIND).status_code == 200


def test_silent_streams_of_grpc_give_way(server: Running, impatient: None) -> None:
    with Wire(server.addresses.grpc) as wire:
        wire.send(b"".join(begin(number, head("ModelStreamInfer")) for number in range(1, 2 * MOST, 2)))
        assert wire.status() == 8, "the first ones had to go"
        with grpc.insecure_channel(server.addresses.grpc) as channel:
            stream = channel.stream_stream(
                "/inference.GRPCInferenceService/ModelStreamInfer", lambda message: message, lambda data: data
            )
            assert next(iter(stream(iter([files(FILE).SerializeToString()]), timeout=20)))


def test_few_messages_of_grpc_are_read_at_once(server: Running) -> None:
    """Each of these has sent its first bytes only; an honest call beside them is answered nevertheless."""
    with Wire(server.addresses.grpc) as wire:
        half = b"\0" + (BODY // 2).to_bytes(4, "big") + bytes(100)
        wire.send(b"".join(begin(n, head("ModelInfer")) + frame(DATA, 0, n, half) for n in range(1, 2 * MOST - 8, 2)))
        with grpc.insecure_channel(server.addresses.grpc) as channel:
            assert arrays(infer(channel, files(FILE)))["num_detections"].tolist() == [1]


def test_an_answer_that_nobody_reads_ends_its_connection() -> None:
    with running(FakeEngine, grpc_port=None, limits=Limits(body_seconds=0.3)) as server:
        connections = server.server._http[0][0].server_state.connections
        with bare(server, b"") as connection:
            connection.settimeout(5)
            with suppress(OSError):  # it ends while we go on asking
                for _ in range(2000):
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wait_until(lambda: not connections, 20.0)


def test_streams_that_had_to_go_end_quietly_with_the_server(caplog: pytest.LogCaptureFixture, impatient: None) -> None:
    with ExitStack() as stack:
        with running(FakeEngine, grpc_port=None, limits=replace(LIMITS, connections=4)) as server:
            for _ in range(12):
                stack.enter_context(connect(f"ws://{server.addresses.rest}/v1/stream"))
        assert "Traceback" not in caplog.text
