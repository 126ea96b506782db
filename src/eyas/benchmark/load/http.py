"""The client's side of HTTP/1.1 with as little between the clock and the socket as possible: kept connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

from eyas.errors import UserError

BROKEN = 0  # in place of a status: the connection failed, or ended before the answer did


@dataclass(frozen=True)
class Target:
    """Where requests go, and what they carry.

    Attributes:
        url: http or https, with the path.
        bodies: what is sent, each in its turn.
        headers: sent with every body, as (name, value).
        verify: whether an https server must show a certificate that this machine trusts.

    Raises:
        UserError: the URL is none, or there is nothing to send.
    """

    url: str
    bodies: Sequence[bytes]
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be sent."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"'{self.url}' is not a server address.", expected="http://host:port/path")
        if not self.bodies:
            raise UserError("There are no requests to send.", where="bodies")
        for name, value in self.headers.items():
            if not (name + value).isprintable() or not name or set(name) & set(" :"):
                raise UserError(f"The header {name!a} can't be sent.", expected="NAME: VALUE, printable")

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context of https; None for http."""
        if urlsplit(self.url).scheme == "http":
            return None
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def messages(self) -> list[bytes]:
        """Return the whole requests, as they go over the wire."""
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join(lines)
        return [f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body for body in self.bodies]


class HttpConnection(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[int] | None = None
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.usable = transport, True

    def ask(self, message: bytes) -> asyncio.Future[int]:
        """Send a request, at once, and return what will be the status of its answer, `BROKEN` if none comes."""
        assert self._answer is None and self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(message)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_complete(self) -> None:
        """The answer is whole; the parser calls this."""
        status: int = self._parser.get_status_code()
        if status < 200:
            return  # "100 Continue": the answer is still to come
        self.usable = self.usable and self._parser.should_keep_alive()
        self._end(status)
        if not self.usable:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """No answer will come any more."""
        self.usable = False
        self._end(BROKEN)

    def close(self) -> None:
        """Close at once; who waits for an answer gets `BROKEN`."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()
        self._end(BROKEN)

    def _end(self, status: int) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(status)


class Client:
    """Sends requests over as many connections as are wanted at once, and keeps them.

    Args:
        target: where to.

    Attributes:
        opened: how many connections were opened.
    """

    def __init__(self, target: Target) -> None:
        self._host, self._port = target.address
        self._tls = target.tls
        self._messages = target.messages()
        self._free: list[HttpConnection] = []
        self._busy: set[HttpConnection] = set()
        self.opened = 0

    async def warm(self, num: int) -> None:
        """Have `num` open connections."""
        for _ in range(num - len(self._free)):
            self._free.append(await self._open())

    async def ask(self, number: int, seconds: float) -> int:
        """Send the request of that number and return the status of the answer.

        Args:
            number: which body, counted around.
            seconds: how long to wait for the answer.

        Returns:
            `BROKEN` where there is none.

        Raises:
            TimeoutError: there was no answer in time; the connection is closed.
        """
        connection = self._kept()
        if connection is None:
            try:
                connection = await self._open()
            except OSError:
                return BROKEN
        self._busy.add(connection)
        try:
            async with asyncio.timeout(seconds):
                status = await connection.ask(self._messages[number % len(self._messages)])
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
            if connection.usable:
                self._free.append(connection)
        return status

    def _kept(self) -> HttpConnection | None:
        """Return a free connection that still lives; None where there is none."""
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                return connection
        return None

    async def _open(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(HttpConnection, self._host, self._port, ssl=self._tls)
        self.opened += 1
        return connection

    async def close(self) -> None:
        """Close all connections."""
        for connection in (*self._free, *self._busy):
            connection.close()
        await asyncio.sleep(0)
