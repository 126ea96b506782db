"""`POST /v1/detect`, `/v1/detect/batch`, `/v1/feedback`, and `GET /v1/models`: Eyas' own, short way to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from eyas.serve.api import Answer, ModelStatus, Request
from eyas.serve.errors import ServeError
from eyas.serve.http import bodies
from eyas.serve.http.bodies import Body
from eyas.serve.http.middleware import RequestContext, context_of
from eyas.serve.http.responses import answer_document, batch_document, reply
from eyas.serve.http.urls import Fetcher
from eyas.serve.limits import KINDS
from eyas.serve.observe.feedback import read_feedback
from eyas.serve.request_options import from_query
from eyas.serve.service import Service, passed_on

T = TypeVar("T")
PATH = "/v1/detect"
FILES = frozenset({*(f"image/{kind}" for kind in KINDS), "application/octet-stream"})
PATIENCE = 0.02  # seconds: work that is done by then is not worth watching over


class RawImages:
    """`POST /v1/detect` with the image itself as the body: straight from the connection to the engine.

    This is the way that most requests come, so nothing stands in it that they do not need: no routing table, no
    request object. The application behind answers everything else.
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
        if kind not in FILES and kind.partition(";")[0].strip().lower() not in FILES:
            await self._app(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        asked = from_query(
            parse_qsl(query, keep_blank_values=True) if query else (), prefers_jpeg(context.headers.get("accept", ""))
        )
        answer = await _detected(self._service, context, receive, Body([await _whole(receive)], asked))
        await _one(answer)(scope, receive, send)


@dataclass(frozen=True)
class Detect:
    """The handlers; `fetch` gets an image from a URL, None where URLs are off."""

    service: Service
    fetch: Fetcher | None = None

    async def one(self, http: Http) -> Response:
        """Detect on one image of JSON or a form; the annotated image where `Accept` prefers JPEG."""
        annotate = prefers_jpeg(http.headers.get("accept", ""))
        body = await bodies.read(http, self.service, self.fetch, many=False, annotate=annotate)
        return _one(await _detected(self.service, context_of(http.scope), http.receive, body))

    async def batch(self, http: Http) -> Response:
        """Detect on several images, which are admitted all or none; each has a result of its own."""
        body = await bodies.read(http, self.service, self.fetch, many=True)
        answer = await _detected(self.service, context_of(http.scope), http.receive, body, partial=True)
        return reply(batch_document(answer))

    async def feedback(self, http: Http) -> Response:
        """Log what somebody says about an answer."""
        body = await bodies.json_body(http, self.service.limits)
        request_id, content = await self.service.desk.read(len(body), read_feedback, body)
        if self.service.events is None:
            raise ServeError("not_found", "This server has no event log to store feedback in.")
        known = self.service.events.feedback(request_id, content)
        return reply({"id": request_id, "known": known}, 202)

    async def models(self, _http: Http) -> Response:
        """List the versions that are served."""
        return reply({"models": [_model_document(each) for each in self.service.engine.models()]})


async def _whole(receive: Receive) -> bytes:
    """Return the whole body of a request."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServeError("cancelled", "The client disconnected.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _detected(
    service: Service, context: RequestContext, receive: Receive, body: Body, *, partial: bool = False
) -> Answer:
    """Return what was found in the images of a body; with `partial` each has a result of its own."""
    asked = body.asked
    request = Request(
        id=context.id,
        model=asked.model,
        version=asked.version,
        images=tuple(body.images),
        options=asked.options,
        timeout=asked.timeout,
        lane=asked.lane,
        headers=passed_on(context.headers),
        partial=partial,
        refused=body.refused,
    )
    return await while_connected(receive, service.detect(request, protocol="rest", trace=context.trace))


async def while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Return what the work returns; cancel it when the client, whose body must have been read, disconnects.

    Raises:
        ServeError: the client went away.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    watches: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    timer = loop.call_later(PATIENCE, lambda: watches.append(loop.create_task(watch())))
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ServeError("cancelled", "The client disconnected.") from None
    finally:
        timer.cancel()
        for each in watches:
            each.cancel()


def _one(answer: Answer) -> Response:
    """Return the answer about one image: the annotated image if it was asked for, else JSON."""
    if answer.annotated:
        headers = {
            "x-eyas-model": quote(f"{answer.model.name}/{answer.model.version}"),
            "x-eyas-detections": str(len(answer.detections[0])),
        }
        return Response(answer.annotated[0], headers=headers, media_type="image/jpeg")
    return reply(answer_document(answer))


def prefers_jpeg(accept: str) -> bool:
    """Return whether an Accept header names JPEG, and nothing that JSON fits better."""
    if "image/jpeg" not in accept.lower():
        return False
    weights: dict[str, float] = {}
    for entry in accept.lower().split(",")[:32]:
        kind, _, rest = entry.partition(";")
        quality = rest.strip().removeprefix("q=") if rest.strip().startswith("q=") else "1"
        try:
            weights[kind.strip()] = float(quality)
        except ValueError:
            weights[kind.strip()] = 0.0
    return weights.get("image/jpeg", 0.0) > weights.get("application/json", 0.0)


def _model_document(status: ModelStatus) -> dict[str, Any]:
    manifest = status.manifest
    document: dict[str, Any] = {
        "name": status.key.name,
        "version": status.key.version,
        "state": status.state,
        "reason": status.reason,
        "aliases": list(status.aliases),
        "default": status.default,
    }
    if manifest is not None:
        document["classes"] = list(manifest.classes)
        document["input"] = {"height": manifest.input.height, "width": manifest.input.width}
        document["runtime"] = {"target": manifest.target, "precision": manifest.precision}
    return document
