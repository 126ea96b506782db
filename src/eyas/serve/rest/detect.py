"""`POST /v1/detect`, `/v1/detect/batch`, `/v1/feedback`, and `GET /v1/models`: Eyas' own, short way to ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.types import Receive

from eyas.serve import jsons
from eyas.serve.api import Answer, ModelStatus, Request
from eyas.serve.errors import ServeError
from eyas.serve.limits import check_id
from eyas.serve.rest import bodies
from eyas.serve.rest.disconnect import while_connected
from eyas.serve.rest.layers import Context, context_of
from eyas.serve.rest.replies import head_document, picture_document, reply, result_document
from eyas.serve.service import Service, passed_on
from eyas.serve.urls import Fetcher

VERDICTS = ("correct", "wrong", "missed", "unsure")


@dataclass(frozen=True)
class Detect:
    """The handlers.

    Attributes:
        service: what answers.
        fetch: gets a picture from a URL; None where URLs are off.
    """

    service: Service
    fetch: Fetcher | None = None

    async def one(self, http: Http) -> Response:
        """Detect on one picture; the annotated picture where `Accept` prefers JPEG.

        A body that is the picture itself does not come here: see `eyas.serve.rest.raw`.
        """
        annotate = prefers_jpeg(http.headers.get("accept", ""))
        body = await bodies.read(http, self.service.limits, self.fetch, many=False, annotate=annotate)
        return one_reply(await detected(self.service, context_of(http.scope), http.receive, body))

    async def batch(self, http: Http) -> Response:
        """Detect on several pictures, which are admitted all or none; each has a result of its own."""
        body = await bodies.read(http, self.service.limits, self.fetch, many=True)
        answer = await detected(self.service, context_of(http.scope), http.receive, body, partial=True)
        return reply(head_document(answer) | {"pictures": [result_document(each) for each in answer.pictures()]})

    async def feedback(self, http: Http) -> Response:
        """Log what somebody says about an answer."""
        fields = jsons.parse_object(await http.body(), depth=self.service.limits.json_depth)
        request_id, content = checked_feedback(fields)
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
    """Return what was found in the pictures of a REST request, whose body has been read.

    Args:
        service: what answers.
        context: what the layers found out about the request.
        receive: tells when the client goes away.
        body: the pictures, and what is asked.
        partial: whether each picture has a result of its own.

    Raises:
        ServeError: the request was refused, dropped or failed, or the client went away.
    """
    asked = body.asked
    request = Request(
        id=context.id,
        model=asked.model,
        version=asked.version,
        pictures=body.pictures,
        options=asked.options,
        timeout=asked.timeout,
        lane=asked.lane,
        headers=passed_on(context.headers),
        partial=partial,
        refused=dict(body.refused),
    )
    return await while_connected(receive, service.detect(request, protocol="rest", trace=context.trace))


def one_reply(answer: Answer) -> Response:
    """Return the answer about one picture: the annotated picture if it was asked for, else JSON."""
    if answer.annotated:
        headers = {
            "x-eyas-model": quote(f"{answer.model.name}/{answer.model.version}"),
            "x-eyas-detections": str(len(answer.detections[0])),
        }
        return Response(answer.annotated[0], headers=headers, media_type="image/jpeg")
    return reply(head_document(answer) | picture_document(answer.detections[0]))


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


def checked_feedback(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the request's id and what is said about it.

    Raises:
        ServeError: a field is missing, unknown or malformed.
    """
    allowed = ("id", "picture", "verdict", "objects", "note")
    unknown = [name for name in fields if name not in allowed]
    if unknown:
        raise ServeError("invalid", f"Unknown field {unknown[0][:64]!a}; the fields are {', '.join(allowed)}.")
    if None in fields.values():
        raise ServeError("invalid", "A field is null; leave it out instead.")
    request_id = fields.get("id")
    if not isinstance(request_id, str):
        raise ServeError("invalid", "'id' must be the id of a request.")
    check_id(request_id)
    picture, verdict, note = fields.get("picture", 0), fields.get("verdict"), fields.get("note", "")
    if isinstance(picture, bool) or not isinstance(picture, int) or not 0 <= picture < 100_000:
        raise ServeError("invalid", "'picture' must be the number of a picture of the request, from 0.")
    if verdict is not None and verdict not in VERDICTS:
        raise ServeError("invalid", "'verdict' is one of " + ", ".join(VERDICTS) + ".")
    if not isinstance(note, str) or len(note) > 1000:
        raise ServeError("invalid", "'note' must be a text of at most 1000 characters.")
    objects = _objects(fields.get("objects"))
    if verdict is None and objects is None and not note:
        raise ServeError("invalid", "Feedback needs a verdict, objects or a note.")
    return request_id, {"picture": picture, "verdict": verdict, "objects": objects, "note": note}


def _objects(value: Any) -> list[dict[str, Any]] | None:
    """Return the true objects that the feedback names: boxes xyxy in pixels with their classes."""
    if value is None:
        return None
    wrong = ServeError("invalid", "'objects' must be a list of {'box': [x0, y0, x1, y1], 'class': name}.")
    if not isinstance(value, list) or len(value) > 1000:
        raise wrong
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"box", "class"} or not isinstance(entry["class"], str):
            raise wrong
        box = entry["box"]
        if not isinstance(box, list) or len(box) != 4 or len(entry["class"]) > 256:
            raise wrong
        if any(isinstance(side, bool) or not isinstance(side, int | float) or abs(side) > 1e6 for side in box):
            raise wrong
    return value
