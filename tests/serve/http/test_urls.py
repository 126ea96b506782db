"""Images from URLs: only public addresses, whatever name, redirect or second answer leads elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serve.certificates import make_certificates

from eyas.serve.errors import ServeError
from eyas.serve.http import urls
from eyas.serve.http.urls import checked, fetch


@pytest.mark.parametrize(
    "url",
    ["http://a.org/x", "file:///etc/passwd", "ftp://a.org/x", "gopher://a.org", "https://", "https:///x", "//a.org/x",
     "https://user@a.org/", "https://u:p@a.org/", "https://a.org:22/", "https://a.org:99999/", "https://[::1",
     "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
     "https://134744072/", "https://8.8.8.8./", "https://08.8.8.8/", "https://a.org.0x/", "https://a.1/",
     "https://a.org/\r\nX: y", "https://a.org/é", "https://a.org/ x", "https://a.org/" + "x" * 3000, "", "data:,x"],
)  # fmt: skip
def test_only_plain_https_urls_are_fetched(url: str) -> None:
    with pytest.raises(ServeError):
        checked(url)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have every name resolve to these addresses, one list each time, the last one for good."""

    def set_addresses(*answers: list[str]) -> None:
        left = list(answers)

        async def resolve(_host: str, _port: int) -> list[str]:
            return left.pop(0) if len(left) > 1 else left[0]

        monkeypatch.setattr(urls, "resolve", resolve)

    return set_addresses


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["8.8.8.8", "127.0.0.1"], []])
def test_a_name_that_leads_inside_is_refused_before_a_connection(
    addresses: list[str], resolved: Callable[..., None]
) -> None:
    resolved(addresses)
    with pytest.raises(ServeError, match="not public"):
        asyncio.run(fetch("https://metadata.example/", 1000))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "0x7f000001", "2130706433", "localhost"])
def test_the_numbers_of_an_inner_host_are_refused(host: str) -> None:
    with pytest.raises(ServeError):
        asyncio.run(fetch(f"https://{host}/", 1000))


Answer = Callable[[str], bytes]


@pytest.fixture
def fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: Callable[..., None]
) -> Callable[[Answer], bytes]:
    """What is fetched from a TLS server here, which answers each path; loopback counts as public for it."""
    made = make_certificates(tmp_path)
    resolved(["127.0.0.1"])

    async def run(answer: Answer) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            writer.write(answer(line.split()[1].decode()))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(urls, "tls", lambda: ssl.create_default_context(cafile=str(made.authority)))
        monkeypatch.setattr(urls, "is_public", lambda address: address == "127.0.0.1")
        monkeypatch.setattr(urls, "PORTS", {port, 443})
        async with server:
            return await fetch(f"https://127.0.0.1:{port}/a.jpg", 1000)

    return lambda answer: asyncio.run(run(answer))


def test_an_image_is_fetched_also_behind_a_redirect(fetched: Callable[[Answer], bytes]) -> None:
    def answer(path: str) -> bytes:
        if path == "/a.jpg":
            return b"HTTP/1.1 302 Found\r\nLocation: /b.jpg?x=1\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + path.encode()[:3]

    assert fetched(answer) == b"/b."


def test_an_image_may_come_in_chunks(fetched: Callable[[Answer], bytes]) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert fetched(lambda _path: head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") == b"abc"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /a.jpg\r\n\r\n", "redirects too often"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "Only https"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "Only https"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:22/\r\n\r\n", "another port"),
        (b"HTTP/1.1 404 No\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "more than 1000"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, "more than 1000"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc", "ended early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "ended early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000, "more than 1000"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", "something other than HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", "encoding"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "too many headers"),
        (b"SSH-2.0\r\n\r\n", "something other than HTTP"),
        (b"HTTP/1.1 2", "could not be fetched"),
        (b"", "could not be fetched"),
    ],
)
def test_an_answer_that_is_none_is_refused(fetched: Callable[[Answer], bytes], head: bytes, message: str) -> None:
    with pytest.raises(ServeError, match=message):
        fetched(lambda _path: head)


def test_a_redirect_that_leads_inside_is_refused(
    fetched: Callable[[Answer], bytes], resolved: Callable[..., None]
) -> None:
    """The name resolves to a public address first, and to this machine when the redirect is followed."""
    resolved(["127.0.0.1"], ["169.254.169.254"])
    with pytest.raises(ServeError, match="not public"):
        fetched(lambda _path: b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n")


def test_a_slow_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(5)
        return []

    monkeypatch.setattr(urls, "resolve", resolve)
    monkeypatch.setattr(urls, "SECONDS", 0.1)
    with pytest.raises(ServeError, match="in time"):
        asyncio.run(fetch("https://slow.example/", 1000))
