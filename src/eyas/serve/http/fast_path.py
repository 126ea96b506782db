"""`POST /v1/detect` with the image itself as the body: straight from the connection to the engine.

This is the way that most requests come, so nothing stands in it that they do not need: no routing table, no request
object. Everything else goes to the application behind.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from eyas.serve.errors import ServeError
from eyas.serve.http.bodies import Body
from eyas.serve.http.detect import detected, one_reply, prefers_jpeg
from eyas.serve.http.middleware import context_of
from eyas.serve.http.options import from_query
from eyas.serve.limits import KINDS
from eyas.serve.service import Service

PATH = "/v1/detect"
TYPES = frozenset({*(f"image/{kind}" for kind in KINDS), "application/octet-stream"})


class RawImages:
    """Answers raw images and passes on the rest.

    Args:
        app: the application behind.
        service: what answers.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            ServeError: it was refused, dropped or failed.
        """
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        kind = context.headers.get("content-type", "")
        if kind not in TYPES and kind.partition(";")[0].strip().lower() not in TYPES:
            await self._app(scope, receive, send)
            return
        annotate = prefers_jpeg(context.headers.get("accept", ""))
        query = scope["query_string"].decode("latin-1")
        asked = from_query(parse_qsl(query, keep_blank_values=True) if query else (), annotate)
        answer = await detected(self._service, context, receive, Body((await body_of(receive),), asked))
        await one_reply(answer)(scope, receive, send)


async def body_of(receive: Receive) -> bytes:
    """Return the whole body of a request.

    Raises:
        ServeError: the client went away in the middle of it.
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServeError("cancelled", "The client went away.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
