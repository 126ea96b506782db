"""uvicorn's HTTP protocol with what it lacks: limits on headers and their time, places, and whom a request is for."""

from __future__ import annotations

import asyncio
import logging
import re
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eyas.serve.http.connections import PATIENCE, PROBES, Places, Turns
from eyas.serve.http.responses import closing
from eyas.serve.limits import Limits

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_FULL = ("503 Service Unavailable", "unavailable", "There are too many connections.", "1")
_STATUS = {"bad": "400 Bad Request", "slow": "408 Request Timeout", "large": "431 Request Header Fields Too Large"}

# uvicorn's warnings of what strangers send tell an operator nothing, and would let them fill the log.
_LOG = logging.getLogger("eyas.serve.http")
_LOG.setLevel(logging.ERROR)


class _Refused(Exception):
    """Ends the parsing of a request that is refused before the application sees it."""


class Guarded(HttpToolsProtocol):
    """Ends connections that send no request, endless headers or read no answer; uvicorn makes one for each connection.

    Args:
        limits: the limits.
        places: the port's.
        turns: the port's.
        kwargs: uvicorn's own.
    """

    def __init__(self, *, limits: Limits, places: Places, turns: Turns, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limits, self._places, self._turns = limits, places, turns
        self.logger = _LOG
        self._head = 0  # bytes of headers so far
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None  # of headers
        self._unread: asyncio.TimerHandle | None = None  # of an answer that its client does not read
        self._since = 0.0
        self._refusal: tuple[str, str, str, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time of the first request's headers."""
        super().connection_made(transport)
        self._since = monotonic()
        if self._places.enter(self, self.client[0] if self.client else ""):
            self._watch()
        else:
            self._end(*_FULL)

    def data_received(self, data: bytes) -> None:
        """Count the bytes and the seconds of headers that do not come at once."""
        before = self._in_head
        super().data_received(data)
        if self._in_head and self.parser is not None:
            if self._timer is None:
                self._watch()
            if before:
                self._head += len(data)
                if self._head > self._limits.headers:
                    self._end(_STATUS["large"], "invalid", "The headers are too large.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks, and give back the place."""
        self._stop()
        self._places.leave(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for this request's headers from now on."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End it, and refuse what is not for this server, or has no place but for a probe."""
        self._stop()
        self._in_head, self._head = False, 0
        if not self.url.startswith(b"/"):
            self._to_path()
        if self._places.spare(self) and self.url.partition(b"?")[0] not in PROBES:
            self._refuse(*_FULL)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Be idle from now on."""
        self._since = monotonic()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Give the connection, and its place, to a stream, in its turn."""
        self._stop()
        self.transport.pause_reading()
        self._turns.take(self._upgrade)

    def _upgrade(self) -> None:
        if not self.transport.is_closing():
            super().handle_websocket_upgrade()
            self._places.stream(self, self.transport.get_protocol())  # type: ignore[arg-type]
            self.transport.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser gave up: what is no HTTP, or what was refused."""
        self._end(*(self._refusal or (_STATUS["bad"], "invalid", msg, "")))

    def pause_writing(self) -> None:
        """Begin the time in which the client must read its answer."""
        super().pause_writing()
        self._unread = asyncio.get_running_loop().call_later(self._limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """End it."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def idle(self) -> float | None:
        """Return since when nothing was asked, None while something is answered."""
        return self._since if self.cycle is None or self.cycle.response_complete else None

    def end(self) -> None:
        """Close it: another needs its place."""
        self._stop()
        self.transport.close()

    def _to_path(self) -> None:
        """Make a path of a whole URL, which must name the same host as the Host header (RFC 9112, 3.2.2)."""
        match = _ABSOLUTE.match(self.url)
        hosts = {value.strip().lower() for name, value in self.headers if name == b"host"}
        if match is None or hosts != {match[1].lower()}:
            self._refuse(_STATUS["bad"], "invalid", "The request is for another server, or for no path of this one.")
        else:
            rest = self.url[match.end() :].partition(b"#")[0]
            self.url = rest if rest.startswith(b"/") else b"/" + rest

    def _refuse(self, status: str, kind: str, message: str, retry: str = "") -> None:
        self._refusal = (status, kind, message, retry)
        raise _Refused(message)

    def _watch(self) -> None:
        """Begin the time of headers."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.header_seconds, self._slow)
        if self._places.spare(self):
            self._timer.cancel()
            self._timer = loop.call_later(min(PATIENCE, self._limits.header_seconds), self._end, *_FULL)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _slow(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._end(_STATUS["slow"], "timeout", "The headers took too long to arrive.")

    def _end(self, status: str, kind: str, message: str, retry: str = "") -> None:
        """Answer without the application, and close the connection."""
        self._stop()
        self.transport.write(closing(status, kind, message, retry))
        self.transport.close()
