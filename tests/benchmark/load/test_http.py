from __future__ import annotations

import asyncio

import pytest
from tests.benchmark.load.stub import answer, fine, stub_server

from eyas.benchmark.load.http import BROKEN, Client, Target
from eyas.errors import UserError


def test_a_request_is_whole_and_connections_are_kept() -> None:
    async def play() -> None:
        async with stub_server(fine) as stub:
            client = Client(Target(stub.url + "?conf=0.5", [b"one", b"three"], {"X-API-Key": "k"}))
            assert [await client.ask(number, 5.0) for number in range(3)] == [200, 200, 200]
            await client.close()
            assert (client.opened, stub.connections) == (1, 1)
            assert stub.requests[0].startswith(b"POST /v1/detect?conf=0.5 HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"X-API-Key: k\r\nContent-Length: 3\r\n\r\none" in stub.requests[0]
            assert stub.requests[1].endswith(b"\r\n\r\nthree")
            assert stub.requests[2] == stub.requests[0]

    asyncio.run(play())


def test_requests_at_once_have_connections_of_their_own() -> None:
    together = asyncio.Event()

    async def wait_for_all(_body: bytes) -> bytes:
        if len(stubs[0].requests) == 5:
            together.set()
        await together.wait()
        return answer()

    stubs = []

    async def play() -> None:
        async with stub_server(wait_for_all) as stub:
            stubs.append(stub)
            client = Client(Target(stub.url, [b"x"]))
            await client.warm(2)
            assert await asyncio.gather(*(client.ask(number, 5.0) for number in range(5))) == [200] * 5
            assert client.opened == 5
            await client.close()

    asyncio.run(play())


CHUNKED = b"HTTP/1.1 429 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(503)


@pytest.mark.parametrize(
    ("raw", "status", "connections"),
    [
        (CHUNKED, 429, 1),
        (CONTINUED, 503, 1),
        (answer(200, extra="Connection: close\r\n"), 200, 2),
        (b"", BROKEN, 2),
        (b"nonsense\r\n\r\n", BROKEN, 2),
    ],
)
def test_answers_of_all_kinds(raw: bytes, status: int, connections: int) -> None:
    async def play() -> None:
        async def reply(_body: bytes) -> bytes:
            return raw

        async with stub_server(reply) as stub:
            client = Client(Target(stub.url, [b"x"]))
            assert [await client.ask(0, 5.0) for _ in range(2)] == [status] * 2
            assert client.opened == connections
            await client.close()

    asyncio.run(play())


def test_who_waits_too_long_gives_up_and_the_connection_is_not_used_again() -> None:
    async def play() -> None:
        silent = asyncio.Event()

        async def reply(body: bytes) -> bytes:
            if body == b"slow":
                await silent.wait()
            return answer()

        async with stub_server(reply) as stub:
            client = Client(Target(stub.url, [b"slow", b"quick"]))
            with pytest.raises(TimeoutError):
                await client.ask(0, 0.02)
            assert await client.ask(1, 5.0) == 200
            assert client.opened == 2
            silent.set()
            await client.close()

    asyncio.run(play())


def test_nobody_there_is_broken() -> None:
    async def play() -> int:
        async with stub_server(fine) as stub:
            url = stub.url
        return await Client(Target(url, [b"x"])).ask(0, 5.0)

    assert asyncio.run(play()) == BROKEN


@pytest.mark.parametrize(
    ("url", "headers"),
    [("ftp://x/", {}), ("localhost:8000", {}), ("http://x", {"a\r\nb": "c"}), ("http://x", {"a": "b\r\nc"})],
)
def test_what_can_not_be_sent_is_refused(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(UserError):
        Target(url, [b"x"], headers)
