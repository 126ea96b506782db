"""uvicorn's HTTP protocol with what it lacks: limits on the size of headers, on their time, and on connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eyas.serve import jsons
from eyas.serve.limits import Limits


class Guarded(HttpToolsProtocol):
    """Ends connections that send no request, or endless headers; uvicorn makes one for each connection.

    Args:
        limits: the limits.
        kwargs: uvicorn's own.
    """

    def __init__(self, *, limits: Limits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limits = limits
        self._head = 0  # bytes of headers so far
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time of the first request's headers."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._end("503 Service Unavailable", "unavailable", "There are too many connections.", "1")
            return
        self._watch()

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
                    self._end("431 Request Header Fields Too Large", "invalid", "The headers are too large.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for this request's headers from now on."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End it."""
        self._stop()
        self._in_head, self._head = False, 0
        super().on_headers_complete()

    def _watch(self) -> None:
        """Begin the time of headers."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.header_seconds, self._slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _slow(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._end("408 Request Timeout", "timeout", "The headers took too long to arrive.")

    def _end(self, status: str, kind: str, message: str, retry: str = "") -> None:
        """Answer without the application, and close the connection."""
        self._stop()
        body = jsons.dump({"error": message, "kind": kind})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        head += (f"retry-after: {retry}\r\n" if retry else "") + "connection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
