"""Requests for a stream that are none: answered at once, and no line of the log for each."""

from __future__ import annotations

import logging
import select
import socket

import pytest
from tests.serve.fake import FakeEngine
from tests.serve.running import running

UPGRADE = (
    "GET PATH HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nMORE\r\n"
)
STRANGE = {
    "body": ("/v1/stream", "Content-Length: 5\r\n", b"hello", b"400"),
    "no body": ("/v1/stream", "Content-Length: 0\r\n", b"", b"101"),
    "chunks": ("/v1/stream", "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"400"),
    "headers": ("/v1/stream", "X: y\r\n" * 200, b"", b"400"),
    "long": ("/v1/stream", f"X: {'y' * 9000}\r\n", b"", b"400"),
    "nowhere": ("/nowhere", "", b"", b"404"),
    "query": ("/v1/stream?no=1", "", b"", b"400"),
    "page": ("/v1/stream", "Origin: http://other.example\r\n", b"", b"403"),
}


def test_each_is_answered_and_none_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    found = {}
    with caplog.at_level(logging.WARNING), running(FakeEngine, grpc_port=None) as server:
        host, _, port = server.addresses.rest.rpartition(":")
        for name, (path, more, body, _) in STRANGE.items():
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(UPGRADE.replace("PATH", path).replace("MORE", more).encode() + body)
                ready = select.select([connection], [], [], 10)[0]
                found[name] = connection.recv(65_536).partition(b" ")[2][:3] if ready else b"nothing"
    assert found == {name: status for name, (*_, status) in STRANGE.items()}
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
