"""Requests that HTTP and WebSocket do not allow, or that are for somebody else."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator

import pytest
from tests.serve.fake import FakeEngine
from tests.serve.running import Running, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from eyas.serve.limits import Limits


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeEngine, grpc_port=None, limits=Limits(body=200_000)) as started:
        yield started


def answer(server: Running, text: str) -> tuple[int, str]:
    """Return the status and the body that come for a bare request; HOST stands for the server's own."""
    host, _, port = server.addresses.rest.rpartition(":")
    text = text.replace("HOST", server.addresses.rest).replace("\n", "\r\n")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(text.encode("latin-1"))
        found = b""
        while b"\r\n\r\n" not in found and (data := connection.recv(65_536)):
            found += data
        head, _, body = found.partition(b"\r\n\r\n")
        if b"content-length" in head.lower():
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            while len(body) < size and (data := connection.recv(65_536)):
                body += data
        return int(head.split(b" ")[1]), body.decode()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET /livez HTTP/1.1\nHost: HOST\n\n", 200),
        ("GET http://HOST/livez HTTP/1.1\nHost: HOST\n\n", 200),
        ("GET HTTP://HOST/livez?x=1 HTTP/1.1\nHost: HOST\n\n", 200),
        ("GET http://HOST HTTP/1.1\nHost: HOST\n\n", 200),
        ("GET /livez HTTP/1.1\nHost: HOST\nHost: HOST\n\n", 400),
        ("GET /livez HTTP/1.1\nHost: HOST\nhOST: evil.example\n\n", 400),
        ("GET /livez HTTP/1.1\nHost: evil.example\nHost: HOST\n\n", 400),
        ("GET /livez HTTP/1.1\nHost: HOST, evil.example\n\n", 400),
        ("GET http://evil.example/livez HTTP/1.1\nHost: HOST\n\n", 400),
        ("GET http://evil.example/livez HTTP/1.1\nHost: evil.example\n\n", 403),
        ("GET http://HOST/livez HTTP/1.1\nHost: evil.example\n\n", 400),
        ("GET http://user@HOST/livez HTTP/1.1\nHost: HOST\n\n", 400),
        ("GET http://HOST/livez HTTP/1.1\nHost: HOST\nHost: HOST\n\n", 400),
        ("GET http://HOST/livez HTTP/1.1\n\n", 400),
        ("GET ftp://HOST/livez HTTP/1.1\nHost: HOST\n\n", 400),
        ("GET livez HTTP/1.1\nHost: HOST\n\n", 400),
        ("GET http:///livez HTTP/1.1\nHost: HOST\n\n", 400),
        ("OPTIONS * HTTP/1.1\nHost: HOST\n\n", 400),
        ("CONNECT evil.example:443 HTTP/1.1\nHost: evil.example:443\n\n", 400),
        ("GET /livez HTTP/1.1\nHost: HOST/livez?\n\n", 400),
        ("GET /\u00e9 HTTP/1.1\nHost: HOST\n\n", 400),
        ("GET //HOST/livez HTTP/1.1\nHost: HOST\n\n", 404),
        ("POST /v1/feedback HTTP/1.1\nHost: HOST\nContent-Length: 0\nOrigin: http://HOST\nOrigin: null\n\n", 400),
        ("GET /livez HTTP/1.1\nHost: HOST\nX-API-Key: a\nX-API-Key: b\n\n", 400),
        ("POST /v1/detect HTTP/1.1\nHost: HOST\nContent-Length: 0\nContent-Type: a/b\nContent-Type: c/d\n\n", 400),
    ],
)
def test_a_request_is_for_this_server_and_says_so_once(
    server: Running, text: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    found, body = answer(server, text)
    assert found == status, body
    if found >= 400:
        assert set(json.loads(body)) == {"error", "kind"}
    assert "Traceback" not in caplog.text


UPGRADE = (
    "GET {} HTTP/1.1\nHost: {}\nUpgrade: websocket\nConnection: Upgrade\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n{}\n"
)


@pytest.mark.parametrize(
    ("target", "host", "more", "status", "words"),
    [
        ("/v1/stream?conf=7x", "HOST", "", 400, "'conf' must be a number"),
        ("/v1/stream?colour=red", "HOST", "", 400, "Unknown field"),
        ("/v1/stream", "HOST", "Origin: https://evil.example\n", 403, "Pages of other origins"),
        ("/v1/stream", "evil.example", "", 403, "host name"),
        ("/v1/stream", "HOST", "Host: HOST\n", 400, "twice"),
        ("http://evil.example/v1/stream", "HOST", "", 400, "another server"),
        ("/v1/nothing", "HOST", "", 404, "nothing at this address"),
        ("/v1/detect", "HOST", "", 404, "nothing at this address"),
        ("/v1/stream", "HOST", "X-Request-Id: a b\n", 400, "request id"),
    ],
)
def test_a_refused_stream_says_why(
    server: Running, target: str, host: str, more: str, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, body = answer(server, UPGRADE.format(target, host, more))
    assert found == status
    assert words in json.loads(body)["error"]
    assert not caplog.records, "no line of the log for each"


@pytest.mark.parametrize(
    ("more", "body", "status"),
    [
        ("Content-Length: 5\n", "hello", 400),
        ("Content-Length: 0\n", "", 101),
        ("Transfer-Encoding: chunked\n", "0\n\n", 400),
        ("X: y\n" * 200, "", 400),
        (f"X: {'y' * 9000}\n", "", 400),
    ],
)
def test_a_wish_for_a_stream_that_is_none_is_answered_quietly(
    server: Running, more: str, body: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(server, UPGRADE.format("/v1/stream", "HOST", more) + body)[0] == status
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_clients_library_shows_the_words(server: Running) -> None:
    with pytest.raises(InvalidStatus) as caught, connect(f"ws://{server.addresses.rest}/v1/stream?conf=7x"):
        pass
    assert caught.value.response.status_code == 400
    assert json.loads(caught.value.response.body or b"")["kind"] == "invalid"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        (b"\x01\x81\0\0\0\0\xff\x80\x81\0\0\0\0\xfe", 1007),
        (b"\x81\x82\0\0\0\0\xed\xa0", 1007),
        (b"\x81\x81\0\0\0\0a", 1003),
        (b"\x82\x80\0\0\0\0", 1003),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x82\x01a", 1002),
        (b"\xc2\x81\0\0\0\0a", 1002),
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
        (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
        (b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4), 1009),
        (b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5000, 1009),
    ],
)
def test_a_frame_that_is_none_ends_its_stream_quietly(
    server: Running, frames: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ConnectionClosed) as caught, connect(f"ws://{server.addresses.rest}/v1/stream") as stream:
        stream.socket.sendall(frames)
        stream.recv(10)
    assert caught.value.rcvd is not None and caught.value.rcvd.code == code
    assert "Traceback" not in caplog.text
    assert answer(server, "GET /livez HTTP/1.1\nHost: HOST\n\n")[0] == 200
