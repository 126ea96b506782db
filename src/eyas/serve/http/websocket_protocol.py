"""uvicorn's WebSocket protocol with what it lacks: its frames count in the budget, and slow or idle ones end."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from eyas.serve.budget import Budget
from eyas.serve.errors import ServeError
from eyas.serve.http.connections import Places
from eyas.serve.http.responses import closing
from eyas.serve.limits import Limits

FRAGMENTS = 4096  # of one message; each costs more than its bytes
NO_TEXT, POLICY, TOO_BIG, LATER = 1007, 1008, 1009, 1013


class GuardedStream(WebSocketsSansIOProtocol):
    """A WebSocket; uvicorn makes one for each.

    Half-sent frames, and those that the application has not taken, are held in the budget.
    """

    def __init__(self, *, limits: Limits, places: Places, budget: Budget, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limits, self._places = limits, places
        self._held = budget.hold("", self.end)
        self._pieces = self._queued = 0  # bytes of a message's fragments, and of messages that wait
        self._start: float | None = None  # since when a message has been half there
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._last = monotonic()
        self._failed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hold bytes for this client from now on."""
        super().connection_made(transport)
        self._held.client = self.client[0] if self.client else ""

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what it held."""
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        self._held.close()
        self._places.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is there of a message; refuse a request for a stream that is none."""
        super().data_received(data)
        if not self.handshake_initiated:  # it comes whole; of one with a body, say, uvicorn would never tell
            self.transport.write(closing(ServeError("invalid", "This is not a WebSocket request.")))
            self.transport.close()
        elif not self.transport.is_closing():
            self._count()

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment."""
        if len(self.frames) >= FRAGMENTS:
            self._fail(TOO_BIG, "The message has too many fragments.")
            return
        self._pieces += len(event.data)
        super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        """Take a text, or its first fragment."""
        self._pieces = len(event.data)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take a binary message, or its first fragment."""
        self._pieces = len(event.data)
        super().handle_bytes(event)

    def send_receive_event_to_app(self) -> None:
        """Hand on a whole message; a text that is none ends the stream, as RFC 6455 (8.1) wants."""
        size, self._pieces, self._last = self._pieces, 0, monotonic()
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self._fail(NO_TEXT, "The text is not UTF-8.")
                return
        if not self.close_sent:
            self._queued += size
        super().send_receive_event_to_app()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message, whose bytes are the application's from now on."""
        message = await super().receive()
        if message["type"] == "websocket.receive":
            text = message.get("text")
            self._queued -= len(message.get("bytes") or b"") if text is None else len(text.encode())
            if not self.transport.is_closing():
                self._count()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says, unless the stream was closed already by what is here."""
        if not self._failed:
            await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # by a refusal, else uvicorn logs an error for each

    def pause_writing(self) -> None:
        """Begin the time in which the client must read its answers."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """End it."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def idle(self) -> float | None:
        """Return since when no message has come."""
        return self._last

    def end(self) -> None:
        """Close it: another needs its place, or the room of its half-sent message."""
        self._fail(LATER, "The stream was idle, and its place is needed for others.")

    def _count(self) -> None:
        """Hold as many bytes as are there, and watch over a message that is half there."""
        half = self._half()
        more = half + self._queued - self._held.size
        try:
            if more > 0:
                self._held.take(more, more=half > 0)
            else:
                self._held.give(-more)
        except ServeError:
            self._fail(LATER, "The server already holds the maximum number of bytes.")
            return
        if half and self._start is None:
            self._start = self.loop.time()
            self._late = self.loop.call_later(self._limits.seconds(half), self._look)
        elif not half and self._late is not None:
            self._held.arrived()
            self._late.cancel()
            self._start = self._late = None

    def _half(self) -> int:
        return len(self.conn.reader.buffer) + self._pieces

    def _look(self) -> None:
        assert self._start is not None
        left = self._start + self._limits.seconds(self._half()) - self.loop.time()
        if left <= 0.0:
            self._fail(POLICY, "The message arrived too slowly.")
        else:
            self._late = self.loop.call_later(left, self._look)

    def _fail(self, code: int, reason: str) -> None:
        """Close the stream with these words."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._failed = True
        self.transport.close()
