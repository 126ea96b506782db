"""`POST /v1/detect`, `/v1/detect/batch`, `/v1/feedback`, and `GET /v1/models`: Eyas' own, short way to ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.types import Receive

from eyas.serve.api import Answer, ModelStatus, Request
from eyas.serve.errors import ServeError
from eyas.serve.http import bodies
from eyas.serve.http.disconnect import while_connected
from eyas.serve.http.feedback import read_feedback
from eyas.serve.http.middleware import Context, context_of
from eyas.serve.http.responses import head_document, image_document, reply, result_document
from eyas.serve.http.urls import Fetcher
from eyas.serve.service import Service, passed_on


@dataclass(frozen=True)
class Detect:
    """The handlers.

    Attributes:
        service: what answers.
        fetch: gets an image from a URL; None where URLs are off.
    """

    service: Service
    fetch: Fetcher | None = None

    async def one(self, http: Http) -> Response:
        """Detect on one image; the annotated image where `Accept` prefers JPEG.

        A body that is the image itself does not come here: see `eyas.serve.http.fast_path`.
        """
        annotate = prefers_jpeg(http.headers.get("accept", ""))
        body = await bodies.read(
            http, self.service.limits, self.service.desk, self.fetch, many=False, annotate=annotate
        )
        return one_reply(await detected(self.service, context_of(http.scope), http.receive, body))

    async def batch(self, http: Http) -> Response:
        """Detect on several images, which are admitted all or none; each has a result of its own."""
        body = await bodies.read(http, self.service.limits, self.service.desk, self.fetch, many=True)
        answer = await detected(self.service, context_of(http.scope), http.receive, body, partial=True)
        return reply(head_document(answer) | {"images": [result_document(each) for each in answer.images()]})

    async def feedback(self, http: Http) -> Response:
        """Log what somebody says about an answer."""
        body = await bodies.json_body(http, self.service.limits)
        request_id, content = await self.service.desk.read(len(body), read_feedback, body)
        if self.service.events is None:
            raise ServeError("not_found", "This server keeps no event log that feedback could go to.")
        known = self.service.events.feedback(request_id, content)
        return reply({"id": request_id, "known": known}, 202)

    async def models(self, _http: Http) -> Response:
        """List the versions that are served."""
        return reply({"models": [model_document(each) for each in self.service.engine.models()]})


async def detected(
    service: Service, context: Context, receive: Receive, body: bodies.Body, *, partial: bool = False
) -> Answer:
    """Return what was found in the images of a REST request, whose body has been read.

    Args:
        service: what answers.
        context: what the layers found out about the request.
        receive: tells when the client goes away.
        body: the images, and what is asked.
        partial: whether each image has a result of its own.

    Raises:
        ServeError: the request was refused, dropped or failed, or the client went away.
    """
    asked = body.asked
    request = Request(
        id=context.id,
        model=asked.model,
        version=asked.version,
        images=body.images,
        options=asked.options,
        timeout=asked.timeout,
        lane=asked.lane,
        headers=passed_on(context.headers),
        partial=partial,
        refused=dict(body.refused),
    )
    return await while_connected(receive, service.detect(request, protocol="rest", trace=context.trace))


def one_reply(answer: Answer) -> Response:
    """Return the answer about one image: the annotated image if it was asked for, else JSON."""
    if answer.annotated:
        headers = {
            "x-eyas-model": quote(f"{answer.model.name}/{answer.model.version}"),
            "x-eyas-detections": str(len(answer.detections[0])),
        }
        return Response(answer.annotated[0], headers=headers, media_type="image/jpeg")
    return reply(head_document(answer) | image_document(answer.detections[0]))


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
    json = weights.get("application/json", 0.0)
    return weights.get("image/jpeg", 0.0) > json


def model_document(status: ModelStatus) -> dict[str, Any]:
    """Return what a client may know of a version."""
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
