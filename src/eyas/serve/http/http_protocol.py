"""uvicorn's HTTP protocol with what it lacks: limits on headers and their time, places, and whom a request is for."""

from __future__ import annotations

import asyncio
import logging
import re
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eyas.serve.errors import ServeError
from eyas.serve.http.connections import PATIENCE, PROBES, Places, Turns
from eyas.serve.http.responses import closing
from eyas.serve.limits import Limits

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)

# uvicorn's warnings of what strangers send tell an operator nothing, and would let them fill the log.
_LOG = logging.getLogger("eyas.serve.http")
_LOG.setLevel(logging.ERROR)


def _full() -> ServeError:
    return ServeError("unavailable", "There are too many connections.", retry_after=1.0)


class Guarded(HttpToolsProtocol):
    """Ends connections that send no request, endless headers or read no answer; uvicorn makes one for each."""

    def __init__(self, *, limits: Limits, places: Places, turns: Turns, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limits, self._places, self._turns = limits, places, turns
        self.logger = _LOG
        self._head = 0  # bytes of headers so far
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None  # of headers
        self._unread: asyncio.TimerHandle | None = None  # of an answer that its client does not read
        self._since = 0.0
        self._refusal: ServeError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time of the first request's headers."""
        super().connection_made(transport)
        self._since = monotonic()
        if self._places.enter(self, self.client[0] if self.client else ""):
            self._watch()
        else:
            self._end(_full())

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
                    self._end(ServeError("invalid", "The headers are too large."), 431)

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
            self._refuse(_full())
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
        self._end(self._refusal or ServeError("invalid", msg))

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
            self._refuse(
                ServeError("invalid", "The request is for another server, or for a path that this one does not have.")
            )
        else:
            rest = self.url[match.end() :].partition(b"#")[0]
            self.url = rest if rest.startswith(b"/") else b"/" + rest

    def _refuse(self, error: ServeError) -> None:
        self._refusal = error
        raise error

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.header_seconds, self._slow)
        if self._places.spare(self):
            self._timer.cancel()
            self._timer = loop.call_later(min(PATIENCE, self._limits.header_seconds), self._end, _full())

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _slow(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._end(ServeError("timeout", "The headers took too long to arrive."))

    def _end(self, error: ServeError, status: int | None = None) -> None:
        self._stop()
        self.transport.write(closing(error, status))
        self.transport.close()
