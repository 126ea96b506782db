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
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from eyas.addresses import is_public
from eyas.serve.errors import ServeError

Fetcher = Callable[[str], Awaitable[bytes]]
Resolve = Callable[[str, int], Awaitable[list[str]]]
_DOTTED = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True)
class UrlSettings:
    """Limits of fetching.

    Attributes:
        size: most bytes of an image.
        seconds: within which it must have arrived, redirects included.
        redirects: how many are followed.
        resolve: gives a host's addresses.
        context: of TLS.
        ports: that may be named.
        public: says whether an address may be connected to.
    """

    size: int = 32 * 2**20
    seconds: float = 10.0
    redirects: int = 3
    resolve: Resolve = resolve
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    ports: frozenset[int] = frozenset({443})
    public: Callable[[str], bool] = is_public


async def fetch(url: str, settings: UrlSettings) -> bytes:
    """Return what lies at the URL.

    Raises:
        ServeError: the URL is not allowed, or nothing usable came from it.
    """
    try:
        async with asyncio.timeout(settings.seconds):
            for _ in range(settings.redirects + 1):
                status, location, body = await _get(url, settings)
                if status not in _REDIRECTS:
                    break
                url = urljoin(url, location)
            else:
                raise ServeError("invalid", "The URL redirects too often.")
    except TimeoutError:
        raise ServeError("invalid", "The URL did not answer in time.") from None
    except (OSError, EOFError, ValueError) as error:
        raise ServeError("invalid", "Nothing could be fetched from the URL.") from error
    if status != 200:
        raise ServeError("invalid", f"The URL answered with status {status}.")
    return body


def checked(url: str, settings: UrlSettings) -> SplitResult:
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
        raise ServeError("forbidden", "An address is written as four decimal numbers with dots between them.")
    if parts.username is not None or parts.password is not None or port not in settings.ports:
        raise ServeError("forbidden", "A URL with a name, a password or another port is not fetched.")
    return parts


async def _get(url: str, settings: UrlSettings) -> tuple[int, str, bytes]:
    """Ask the URL's own address once, and return status, the redirect's target, and the body."""
    parts = checked(url, settings)
    host, port = parts.hostname or "", parts.port or 443
    try:
        addresses = await settings.resolve(host, port)
    except OSError:
        raise ServeError("invalid", "The URL's host is not known.") from None
    if not addresses or not all(map(settings.public, addresses)):
        raise ServeError("forbidden", "The URL leads to an address that is not public.")
    reader, writer = await asyncio.open_connection(
        addresses[0], port, ssl=settings.context, server_hostname=host, limit=16 * 1024
    )
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        name = f"[{host}]" if ":" in host else host
        ask = f"GET {path} HTTP/1.0\r\nHost: {name}\r\nAccept: image/*\r\nUser-Agent: eyas\r\nConnection: close\r\n\r\n"
        writer.write(ask.encode("ascii"))
        await writer.drain()
        status, headers = await _head(reader)
        if status in _REDIRECTS:
            return status, headers.get("location", ""), b""
        return status, "", await _body(reader, headers, settings)
    finally:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an answer."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        raise ServeError("invalid", "The URL answered with too many headers.") from None
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    words = lines[0].split(" ")
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise ServeError("invalid", "The URL answered with something else than HTTP.")
    return int(words[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], settings: UrlSettings) -> bytes:
    """Return the body up to the end of the connection; too much of it is refused as soon as that is known."""
    if "transfer-encoding" in headers or headers.get("content-encoding", "identity") != "identity":
        raise ServeError("invalid", "The URL answered in an encoding that was not asked for.")
    announced = headers.get("content-length", "")
    if announced and (not announced.isdecimal() or int(announced[:18]) > settings.size):
        raise ServeError("too_large", f"The URL's image has more than {settings.size} bytes.")
    parts, size = [], 0
    while part := await reader.read(64 * 1024):
        size += len(part)
        if size > settings.size:
            raise ServeError("too_large", f"The URL's image has more than {settings.size} bytes.")
        parts.append(part)
    if announced and size != int(announced[:18]):
        raise ServeError("invalid", "The URL's image ended too early.")
    return b"".join(parts)
