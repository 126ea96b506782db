"""What REST answers with: detections as JSON, and refusals as JSON with the right status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eyas.renamed import KEYS
from eyas.serve import jsons
from eyas.serve.api import Answer
from eyas.serve.errors import Kind, Refused, ServeError, crashed
from eyas.types import Detections

JSON = "application/json"
_KINDS: Mapping[int, Kind] = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method",
    413: "too_large",
    415: "unsupported",
}


def reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(jsons.dump(document), status, headers, media_type=JSON)


def refusal(error: ServeError, headers: Mapping[str, str] | None = None) -> Response:
    """Return a ServeError as an answer: {"error": what was wrong, "kind": a name for programs}."""
    found = dict(headers or {})
    if error.wire.retry:
        found["retry-after"] = str(max(1, math.ceil(error.retry_after or 1.0)))
    if error.kind == "unauthenticated":
        found["www-authenticate"] = "Bearer"
    return reply(refusal_document(error), error.wire.http, found)


async def refuse(error: ServeError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or the wish for a WebSocket, with a ServeError."""
    response = refusal(error)
    if scope["type"] == "websocket":  # the words are a body, which a program can read, in place of the upgrade
        start = {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await send(start)
        await send({"type": "websocket.http.response.body", "body": response.body})
        return
    await response(scope, receive, send)


def closing(error: ServeError, status: int | None = None) -> bytes:
    """Return the bytes of a refusal without the application, after which the connection is closed."""
    response, found = refusal(error), HTTPStatus(status or error.wire.http)
    head = [(b"connection", b"close"), *response.raw_headers]
    lines = [f"HTTP/1.1 {found:d} {found.phrase}".encode(), *(b"%b: %b" % pair for pair in head)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def refusal_document(error: ServeError | Refused) -> dict[str, Any]:
    """Return why a request, or one image of it, was refused."""
    return {"error": error.message, "kind": error.kind}


async def on_error(_request: Http, error: Exception) -> Response:
    """Answer what ended a request: a refusal, ours or Starlette's, or a fault, whose traceback goes to the log."""
    if isinstance(error, ServeError):
        return refusal(error)
    if isinstance(error, ClientDisconnect):  # nobody reads it, and it is no fault of ours
        return refusal(ServeError("cancelled", "The client disconnected."))
    if not isinstance(error, HTTPException):
        return refusal(crashed())
    kind = _KINDS.get(error.status_code, "invalid" if error.status_code < 500 else "internal")
    words = {"not_found": "There is nothing at this address.", "method": "This address does not support the method."}
    return refusal(ServeError(kind, words.get(kind, str(error.detail))), error.headers)


def image_document(found: Detections) -> dict[str, Any]:
    """Return one image's detections: boxes xyxy in pixels, best score first."""
    boxes = found.boxes.astype(np.float64).round(2).tolist()
    scores = found.scores.astype(np.float64).round(5).tolist()
    classes = found.classes
    rows = [
        {"box": box, "score": score, "label": label, "class": classes[label]}
        for box, score, label in zip(boxes, scores, found.labels.tolist(), strict=True)
    ]
    return {"height": found.height, "width": found.width, "detections": rows}


def answer_document(answer: Answer) -> dict[str, Any]:
    """Return an answer about one image."""
    return _head(answer) | image_document(answer.detections[0])


def batch_document(answer: Answer) -> dict[str, Any]:
    """Return an answer about several images: of each its detections, or why it has none."""
    images = [refusal_document(each) if isinstance(each, Refused) else image_document(each) for each in answer.images()]
    return _head(answer) | {"images": images, KEYS["images"]: images}


def _head(answer: Answer) -> dict[str, Any]:
    """Return what an answer says beside its images: id, model, and milliseconds of each stage."""
    timing = answer.timing
    return {
        "id": answer.id,
        "model": {"name": answer.model.name, "version": answer.model.version},
        "milliseconds": {
            "queue": round(timing.queue * 1e3, 3),
            "decode": round(timing.decode * 1e3, 3),
            "preprocess": round(timing.preprocess * 1e3, 3),
            "inference": round(timing.inference * 1e3, 3),
            "postprocess": round(timing.postprocess * 1e3, 3),
            "total": round(timing.total * 1e3, 3),
        },
    }
