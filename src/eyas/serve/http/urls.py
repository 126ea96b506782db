"""Images from URLs, where that is switched on: https only, public addresses only, and never trusted twice.

A name is resolved once; every address must be public; the connection goes to that very address, so that a name which
resolves differently a moment later changes nothing. A redirect is a new URL and goes through the same checks.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from eyas.addresses import is_public
from eyas.serve.errors import ServeError

SECONDS = 10.0  # within which an image must have arrived, redirects included
REDIRECTS = 3
PORTS = frozenset({443})
HEADERS = 16 * 1024  # most bytes of an answer's headers
tls = cache(ssl.create_default_context)  # the authorities are read when the first URL comes
Fetcher = Callable[[str], Awaitable[bytes]]
_DOTTED = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def fetch(url: str, most: int) -> bytes:
    """Return what lies at the URL, at most so many bytes.

    Raises:
        ServeError: the URL is not allowed, or nothing usable came from it.
    """
    try:
        async with asyncio.timeout(SECONDS):
            for _ in range(REDIRECTS + 1):
                status, location, body = await _get(checked(url), most)
                if status not in _REDIRECTS:
                    break
                url = urljoin(url, location)
            else:
                raise ServeError("invalid", "The URL redirects too often.")
    except TimeoutError:
        raise ServeError("invalid", "The URL did not answer in time.") from None
    except (OSError, EOFError, ValueError) as error:
        raise ServeError("invalid", "The URL could not be fetched.") from error
    if status != 200:
        raise ServeError("invalid", f"The URL answered with status {status}.")
    return body


def checked(url: str) -> SplitResult:
    """Return the parts of the URL if it may be fetched, its addresses apart."""
    try:
        parts = urlsplit(url)
        port, host = parts.port or 443, parts.hostname
    except ValueError:
        raise ServeError("invalid", "The URL is malformed.") from None
    odd = any(ord(letter) <= 32 or ord(letter) > 126 for letter in url)
    if parts.scheme != "https" or not host or odd or len(url) > 2048:
        raise ServeError("forbidden", "Only https URLs are fetched.")
    last = host.rstrip(".").rpartition(".")[2]
    if ":" not in host and re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last) and not _DOTTED.fullmatch(host):
        raise ServeError("forbidden", "An IP address must be four decimal numbers separated by dots.")
    if parts.username is not None or parts.password is not None or port not in PORTS:
        raise ServeError("forbidden", "URLs with a user name, a password or another port are not fetched.")
    return parts


async def _get(parts: SplitResult, most: int) -> tuple[int, str, bytes]:
    """Ask the URL's own address once, and return status, the redirect's target, and the body."""
    host, port = parts.hostname or "", parts.port or 443
    try:
        addresses = await resolve(host, port)
    except OSError:
        raise ServeError("invalid", "The URL's host is unknown.") from None
    if not addresses or not all(map(is_public, addresses)):
        raise ServeError("forbidden", "The URL leads to an address that is not public.")
    headers = [("Host", f"[{host}]" if ":" in host else host), ("Accept", "image/*"), ("User-Agent", "eyas")]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS)
    asked = http.send(h11.Request(method="GET", target=path, headers=[*headers, ("Connection", "close")]))
    reader, writer = await asyncio.open_connection(addresses[0], port, ssl=tls(), server_hostname=host)
    try:
        writer.write((asked or b"") + (http.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        return await _answer(reader, http, most)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, http: h11.Connection, most: int) -> tuple[int, str, bytes]:
    """Return status, the redirect's target, and the body; too much of it is refused as soon as that is known."""
    large = ServeError("too_large", f"The URL's image has more than {most} bytes.")
    status, parts, size = 0, [], 0
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as error:
            words = "something other than HTTP" if error.error_status_hint != 431 else "too many headers"
            told = "The download from the URL ended early." if status else f"The URL answered with {words}."
            raise ServeError("invalid", told) from None
        if event is h11.NEED_DATA:
            data = await reader.read(64 * 1024)
            if not data and not status:
                raise EOFError
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {name: value.decode("latin-1") for name, value in event.headers}
            if status in _REDIRECTS:
                return status, headers.get(b"location", ""), b""
            if headers.get(b"content-encoding", "identity") != "identity":
                raise ServeError("invalid", "The URL answered in an encoding that was not requested.")
            if int(headers.get(b"content-length", "0")) > most:
                raise large
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > most:
                raise large
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return status, "", b"".join(parts)
