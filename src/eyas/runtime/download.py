"""What lies at an http address: an image is fetched, within bounds; a stream is left to whom it is streamed.

A person's own command may reach what the person can reach: http, private addresses and this machine too, since cameras
live there. The guards are those of the server for the rest: bytes and seconds are bounded, redirects are few, no other
protocol is followed, and an address on the public internet can't redirect into a private network.
"""

from __future__ import annotations

import http.client
import re
import ssl
from base64 import b64encode
from dataclasses import dataclass
from pathlib import PurePosixPath
from time import monotonic
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from eyas.addresses import is_public
from eyas.errors import UserError
from eyas.image_header import image_kind

MOST_BYTES = 128 << 20
MOST_SECONDS = 60.0
ANSWER_SECONDS = 10.0  # of silence
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_BLOCK = 64 * 1024
_STREAM_TYPES = ("multipart/x-mixed-replace", "video/", "audio/")
_LIST_TYPES = ("application/dash+xml", "application/sdp")


@dataclass(frozen=True)
class Downloaded:
    """What an address gave.

    Attributes:
        data: an image's file; None where it is a stream or a video.
        name: for what is made of it, from the address.
        ends: whether it is a file, whose length is known, and no stream.
    """

    data: bytes | None
    name: str
    ends: bool = False


class _NoHttp(Exception):
    """The other side speaks something else, as some cameras do."""


def is_address(text: str) -> bool:
    """Return whether the text is an address at which an image may lie."""
    return text.lower().startswith(("http://", "https://"))


def fetch_image(address: str) -> bytes:
    """Return the image file at the address.

    Raises:
        UserError: it is not to be had, or is no image; says why.
    """
    found = look_up(address)
    if found.data is None:
        raise UserError("The address is a stream, not an image.", where=address, fix="use detector.stream(address)")
    return found.data


def look_up(address: str) -> Downloaded:
    """Return the image at the address, or say that a stream is there; what it is, its first bytes tell.

    Raises:
        UserError: nothing usable is there: the host is unknown, the answer is an error or a page, or it is too much.
    """
    url, public, end = address, None, monotonic() + MOST_SECONDS
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            parts = _parts(url, address)
            connection = _connect(parts)
            try:
                public = _guarded(connection, public, address)
                answer = _ask(connection, parts)
                if answer.status not in _REDIRECTS:
                    ends = answer.length is not None and not _is_list(answer)
                    return Downloaded(_image(answer, address, end), _name(urlsplit(address)), ends)
                url = urljoin(url, answer.headers.get("Location", ""))
            finally:
                connection.close()
    except _NoHttp:
        return Downloaded(None, _name(urlsplit(address)))
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or error
        raise UserError(f"A secure connection to the address failed: {reason}.", where=address) from None
    except TimeoutError:
        raise UserError("The address did not answer in time.", where=address) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"The download failed: {told or error}.", where=address) from None
    raise UserError("The address redirects too often.", where=address)


def _parts(url: str, address: str) -> SplitResult:
    """Return the parts of an address that may be asked.

    Raises:
        UserError: it is malformed, or a redirect leads to another protocol.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme.lower() in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        fine = False
    if not fine:
        raise UserError("The address is malformed or redirects to something other than http.", where=address)
    return parts


def _connect(parts: SplitResult) -> http.client.HTTPConnection:
    """Return an open connection to the address's host."""
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme.lower() == "https":
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=ANSWER_SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=ANSWER_SECONDS)
    connection.connect()
    return connection


def _guarded(connection: http.client.HTTPConnection, public: bool | None, address: str) -> bool:
    """Return whether the other end is on the public internet; `public` says what the one before it was.

    Raises:
        UserError: a public one has redirected to a private one.
    """
    here = is_public(str(connection.sock.getpeername()[0]))
    if public and not here:
        raise UserError("The address redirects into a private network.", where=address)
    return here


def _ask(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    """Send the request and return the answer's head.

    Raises:
        _NoHttp: it is none.
    """
    path = re.sub(r"[^!-~]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), parts.path or "/")
    query = re.sub(r"[^!-~]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), parts.query)
    headers = {"Accept": "image/*, */*;q=0.5", "User-Agent": "eyas", "Accept-Encoding": "identity"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
    connection.request("GET", path + (f"?{query}" if query else ""), headers=headers)
    try:
        return connection.getresponse()
    except (http.client.BadStatusLine, http.client.UnknownProtocol) as error:
        if isinstance(error, http.client.RemoteDisconnected):
            raise
        raise _NoHttp from None


def _image(answer: http.client.HTTPResponse, address: str, end: float) -> bytes | None:
    """Return the image file that the answer holds; None for a stream or a video.

    Raises:
        UserError: it holds neither, or too much.
    """
    if answer.status != 200:
        reason = f" ({answer.reason})" if answer.reason.isprintable() and answer.reason else ""
        raise UserError(f"The server answered with status {answer.status}{reason}.", where=address)
    kind = answer.headers.get_content_type()
    if kind.startswith(_STREAM_TYPES) or _is_list(answer):
        return None
    data = answer.read1(_BLOCK)
    while len(data) < 32 and monotonic() < end and (more := answer.read1(_BLOCK)):
        data += more
    if image_kind(data) is None:
        page = data.lstrip()[:1] in (b"", b"<", b"{", b"[") or (kind.startswith("text/") and b"\0" not in data)
        if page:
            raise UserError(
                f"The address returns {kind if data else 'nothing'}, not an image or video.",
                expected="the address of the image itself, not of a page that shows it",
                where=address,
            )
        packed = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if packed not in ("", "identity"):  # asked not to be; FFmpeg would unpack it, and take an image for a video
            raise UserError(f"The content has an unsupported encoding ({packed[:20]!a}).", where=address)
        if kind.startswith("image/"):
            raise UserError(f"The address returns {kind}, which is not a supported image.", where=address)
        return None
    room = bytearray(data)
    while part := answer.read1(_BLOCK):
        room += part
        if len(room) > MOST_BYTES:
            raise UserError(f"The image has more than {MOST_BYTES >> 20} MiB.", where=address)
        if monotonic() > end:
            raise UserError(f"The download took longer than {MOST_SECONDS:g} s.", where=address)
    if answer.length:
        raise UserError("The download ended early.", where=address, fix="try again")
    return bytes(room)


def _is_list(answer: http.client.HTTPResponse) -> bool:
    kind = answer.headers.get_content_type()
    return "mpegurl" in kind or kind in _LIST_TYPES or answer.peek(7).startswith(b"#EXTM3U")


def _name(parts: SplitResult) -> str:
    """Return a file name for what the address gives: its path's last part, or its host."""
    last = PurePosixPath(unquote(parts.path)).name
    name = re.sub(r"[^\w.-]+", "_", last or parts.hostname or "")[:100].strip("._")
    return name or "image"
