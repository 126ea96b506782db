"""What surrounds every HTTP request: id, trace and access log; keys and host; limits on size and time of the body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eyas.serve.budget import Reservation
from eyas.serve.errors import ServeError, crashed
from eyas.serve.http.responses import refuse
from eyas.serve.limits import ID, Limits, check_id
from eyas.serve.observe.tracing import Trace, trace_of
from eyas.serve.service import Service, new_id

REQUEST_ID = "x-request-id"
Guard = Callable[[str, str, Mapping[str, str]], str]  # (method, path, headers) -> client's name; raises ServeError
# Headers that decide who is let in or what is read: one that comes twice may mean two things to two readers.
SINGLE = frozenset(
    {
        "host",
        "origin",
        "sec-fetch-site",
        "authorization",
        "x-api-key",
        "content-type",
        "content-length",
        "content-encoding",
        "inference-header-content-length",
        REQUEST_ID,
    }
)
Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the layers found out about a request; at scope["state"]["context"].

    Attributes:
        id: the request's id.
        headers: by lower-case name; `traceparent` is the server's own.
        trace: the request's.
        held: holds the bytes that the request brought.
    """

    id: str
    headers: Mapping[str, str]
    trace: Trace
    held: Reservation


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """Return the context that `Surround` left in the scope."""
    found: RequestContext = scope["state"]["context"]
    return found


class Surround:
    """The outermost layer: request id, trace, host and key, limits, access log."""

    def __init__(self, app: ASGIApp, service: Service, guard: Guard, log: Log | None = None) -> None:
        self._app, self._limits, self._guard, self._log = app, service.limits, guard, log
        self._budget = service.budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, WebSocket or the start of the server."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers, error = _headers(scope, self._limits)
        given = headers.get(REQUEST_ID)
        request_id = given if given is not None and ID.fullmatch(given) else new_id()
        trace = trace_of(headers.get("traceparent"))
        headers["traceparent"] = trace.header
        held = self._budget.hold((scope.get("client") or ("",))[0])
        scope.setdefault("state", {})["context"] = RequestContext(request_id, headers, trace, held)
        body = BodyLimit(receive, self._limits, headers, held)
        status = [0]
        client = ""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID.encode(), request_id.encode())]
                if status[0] >= 400 and body.unread:  # what is left of it is not worth reading
                    message["headers"].append((b"connection", b"close"))
            elif message["type"] == "websocket.accept":
                status[0] = 101
            elif message["type"] == "websocket.close" and not status[0]:  # no route; a refusal's own words come by HTTP
                await refuse(ServeError("not_found", "There is nothing at this address."), scope, receive, answer)
                return
            elif message["type"] == "websocket.http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            if error is not None:
                raise error
            if given is not None:
                check_id(given)
            client = self._guard(scope.get("method", ""), scope["path"], headers)
            await self._app(scope, body if scope["type"] == "http" else receive, answer)
        except ServeError as refused:
            await refuse(refused, scope, receive, answer)
        except BaseException as error:
            if not status[0] and isinstance(error, Exception):
                await refuse(crashed(), scope, receive, answer)
            status[0] = status[0] or 500
            raise
        finally:
            held.close()
            if self._log is not None:
                self._log(
                    {
                        "time": round(time.time(), 3),
                        "id": request_id,
                        "trace": trace.trace,
                        "client": client or (scope.get("client") or ("",))[0],
                        "method": scope.get("method", "WEBSOCKET"),
                        "path": scope["path"][:256],
                        "status": status[0],
                        "milliseconds": round((time.perf_counter() - start) * 1e3, 3),
                    }
                )


def _headers(scope: Scope, limits: Limits) -> tuple[dict[str, str], ServeError | None]:
    """Return the headers by lower-case name; of one that may be repeated the first counts."""
    found: dict[str, str] = {}
    size = len(scope["path"]) + len(scope.get("query_string", b""))
    twice = ""
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        text = name.decode("latin-1")
        if text in SINGLE and text in found:
            twice = text
        found.setdefault(text, value.decode("latin-1"))
    if twice:
        return found, ServeError("invalid", f"The header {twice} is given twice.")
    if size > limits.headers:
        return found, ServeError("invalid", f"The headers have more than {limits.headers} bytes.")
    return found, None


class BodyLimit:
    """Receives a body, and raises when it is too large or takes too long, however it is sent."""

    def __init__(self, receive: Receive, limits: Limits, headers: Mapping[str, str], held: Reservation) -> None:
        self._receive, self._limits, self._held = receive, limits, held
        self._size, self._start = 0, 0.0
        self._complete = False
        self._end: Callable[[ServeError], None] | None = None  # ends the wait for the next message
        held.end = self._make_way
        announced = headers.get("content-length", "")
        self._announced = int(announced) if announced.isdecimal() and len(announced) < 19 else 0
        self._has_body = self._announced > 0 or "transfer-encoding" in headers
        encoding = headers.get("content-encoding", "identity").strip().lower()
        self._encoded = encoding not in ("", "identity")

    @property
    def unread(self) -> bool:
        """Whether there is a body that has not arrived whole."""
        return self._has_body and not self._complete

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            ServeError: the body is compressed, too large or too slow.
        """
        if self._complete:
            return await self._receive()  # the client's disconnecting may take its time
        if self._encoded:
            raise ServeError("unsupported", "Compressed bodies are not accepted.")
        if self._announced > self._limits.body:
            raise self._too_large()
        message = await self._in_time()
        size = len(message.get("body", b""))
        self._size += size
        if self._size > self._limits.body:
            raise self._too_large()
        self._complete = not message.get("more_body", False)
        if size or self._complete:
            self._held.take(size, more=not self._complete)
        return message

    async def _in_time(self) -> Message:
        """Return the next message; what `asyncio.timeout` does, without its price for each request."""
        loop, task, why = asyncio.get_running_loop(), asyncio.current_task(), list[ServeError]()
        assert task is not None

        def end(reason: ServeError) -> None:
            why.append(reason)
            task.cancel()

        self._start = self._start or loop.time()
        timer = loop.call_at(self._start + self._limits.seconds(self._size), lambda: end(self._too_slow()))
        self._end = end
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not why:
                raise
            task.uncancel()
            raise why.pop() from None  # kept here, it would keep this frame, which keeps all that has arrived
        finally:
            self._end = None
            timer.cancel()

    def _make_way(self) -> None:
        if self._end is not None:
            words = "The server needed the memory of a body that stopped arriving."
            self._end(ServeError("unavailable", words, retry_after=1.0))

    def _too_slow(self) -> ServeError:
        seconds = self._limits.seconds(self._size)
        words = f"The body arrived too slowly: {self._size} bytes in {seconds:.0f} seconds."
        if seconds >= self._limits.body_seconds:
            words = f"The body took longer than {seconds:g} seconds to arrive."
        return ServeError("timeout", words)

    def _too_large(self) -> ServeError:
        return ServeError("too_large", f"The body is larger than {self._limits.body} bytes.")
