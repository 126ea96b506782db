"""The OpenAPI document of the public application; tests hold it against the routes and fuzz the server with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from eyas.renamed import KEYS
from eyas.serve.api import Lane
from eyas.serve.errors import WIRES
from eyas.serve.limits import KINDS, Limits
from eyas.serve.observe.feedback import VERDICTS
from eyas.serve.oip.images import DATATYPES
from eyas.types import Suppression

Schema = dict[str, Any]
_FEW = (400, 401, 403, 500)
_SOME = (400, 401, 403, 404, 500)
_ALL = (400, 401, 403, 404, 408, 413, 415, 422, 429, 499, 500, 503, 504)
_TEXT, _NUMBER, _WHOLE, _TRUTH = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
_BINARY = {"type": "string", "format": "binary"}
_FORM, _HTML, _PLAIN = "multipart/form-data", "text/html", "text/plain"


def document(limits: Limits) -> Schema:
    """Return the document for a server with these limits."""
    from importlib.metadata import version

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Eyas",
            "version": version("eyas"),
            "description": "Object detection. The paths below /v2 follow the Open Inference Protocol.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **_detect_paths(limits),
            **_inference_paths(),
            "/livez": _get("livez", "Whether the server is alive", "Live"),
            "/v2/health/live": _get("server_live", "Whether the server is alive", "Live"),
            "/readyz": _get("readyz", "Whether the server accepts requests", "Ready", busy=True),
            "/v2/health/ready": _get("server_ready", "Whether the server accepts requests", "Ready", busy=True),
            "/v1/models": _get("models", "List the served versions", "Models"),
            "/openapi.json": _get("openapi", "This document", ""),
            "/": _get("page", "A page to try an image", "", _HTML),
            "/metrics": _get("metrics", "Prometheus metrics", "", _PLAIN),
        },
        "components": {
            "schemas": {**_detect_schemas(limits), **_inference_schemas()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _operation(name: str, summary: str, refusals: Iterable[int], **answers: Schema) -> Schema:
    """Return an operation; `answers` has the content of each by status, as _200."""
    reasons = {wire.http: kind.replace("_", " ") for kind, wire in WIRES.items()}
    responses = {
        **{str(status): {"description": reasons[status], "content": _json("Refusal")} for status in refusals},
        **{status[1:]: {"description": "the answer", "content": content} for status, content in answers.items()},
    }
    return {"summary": summary, "operationId": name, "responses": responses}


def _get(
    name: str, summary: str, schema: str, kind: str = "", refusals: Iterable[int] = _FEW, *, busy: bool = False
) -> Schema:
    """Return what answers GET with a schema, or with a text of a kind; `busy` tells that 503 says the same."""
    content = {kind: {"schema": _TEXT}} if kind else _json(schema)
    answers = {"_200": content, "_503": content} if busy else {"_200": content}
    return {"get": _operation(name, summary, refusals, **answers)}


def _json(name: str, kind: str = "application/json") -> Schema:
    return {kind: {"schema": _ref(name) if name else {"type": "object"}}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _detect_paths(limits: Limits) -> Schema:
    files = {f"image/{kind}": {"schema": _BINARY} for kind in KINDS}
    image = {**_json("Image"), "image/jpeg": {"schema": _BINARY}}
    one = _operation("detect", "Detect objects in an image", _ALL, _200=image)
    one["requestBody"] = _body({**files, **_json("ImageBody"), **_json("ImageForm", _FORM)})
    many = _operation("detect_batch", "Detect objects in several images", _ALL, _200=_json("Images"))
    many["requestBody"] = _body({**_json("ImagesBody"), **_json("ImagesForm", _FORM)})
    fields = _asked(limits)
    fields["classes"] = {**_TEXT, "description": "names of the classes to report, comma-separated (default: all)"}
    for operation in (one, many):
        operation["parameters"] = [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]
    words = "Report whether an answer was right or wrong"
    feedback = _operation("feedback", words, _ALL, _202=_json("FeedbackAnswer"))
    feedback["requestBody"] = _body(_json("Feedback"))
    return {"/v1/detect": {"post": one}, "/v1/detect/batch": {"post": many}, "/v1/feedback": {"post": feedback}}


def _body(content: Schema) -> Schema:
    return {"required": True, "content": content}


def _inference_paths() -> Schema:
    paths: Schema = {"/v2": _get("server_metadata", "Server metadata", "Server")}
    versions = "/v2/models/{model}/versions/{version}"
    for path, end, names in (("/v2/models/{model}", "", ["model"]), (versions, "_version", ["model", "version"])):
        answer = {**_json("InferAnswer"), "application/octet-stream": {"schema": _TEXT}}
        infer = _operation("infer" + end, "Detect objects in a tensor of images", _ALL, _200=answer)
        found = {
            "": _get("model_metadata" + end, "Model metadata: its tensors", "Model", refusals=_SOME),
            "/ready": _get(
                "model_ready" + end, "Whether the model accepts requests", "ModelReady", refusals=_SOME, busy=True
            ),
            "/infer": {"post": infer},
        }
        for methods in found.values():
            for operation in methods.values():
                operation["parameters"] = [
                    {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names
                ]
        infer["requestBody"] = _body(_json("Infer"))
        paths |= {path + more: methods for more, methods in found.items()}
    return paths


def _asked(limits: Limits) -> Schema:
    """Return the fields that query, JSON and form share."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "model": {**_TEXT, "description": "the model name (default: the default model)"},
        "version": {**_TEXT, "description": "a version, or an alias such as @champion"},
        "conf": {**share, "description": "minimum score"},
        "iou": {**share, "description": "IoU above which the lower-scoring box of a class is dropped"},
        "suppression": {**_TEXT, "enum": list(get_args(Suppression))},
        "classes": _list(_TEXT),
        "max_detections": {"type": "integer", "minimum": 1, "maximum": limits.detections},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": limits.timeout, "description": "seconds"},
        "priority": {**_TEXT, "enum": list(get_args(Lane))},
    }


def _object(required: Iterable[str] | None = None, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required or properties), "properties": properties}


def _closed(required: str, **properties: Schema) -> Schema:
    """Return an object that may have no other fields: what a client sends is never ignored."""
    return {**_object(required.split(), **properties), "additionalProperties": False}


def _list(items: Schema, **more: int) -> Schema:
    return {"type": "array", "items": items, **more}


def _detect_schemas(limits: Limits) -> Schema:
    asked, most = _asked(limits), {"minItems": 1, "maxItems": limits.images}
    form = {**asked, "classes": _TEXT}
    box = _list(_NUMBER, minItems=4, maxItems=4)
    base64 = {**_TEXT, "description": "base64"}
    head = {"id": _TEXT, "model": _object(name=_TEXT, version=_TEXT), "milliseconds": {"type": "object"}}
    found = {"height": _WHOLE, "width": _WHOLE, "detections": _list(_ref("Detection"))}
    images = {
        "type": "array",
        "description": "one entry per image, in order: its detections, or an error",
        "items": {"anyOf": [_object(**found), _ref("Refusal")]},
    }
    return {
        "Refusal": _object(error=_TEXT, kind={**_TEXT, "enum": list(WIRES)}),
        "Detection": _object(box=box, score=_NUMBER, label=_WHOLE, **{"class": _TEXT}),
        "Image": _object(**head, **found),
        "Images": _object(**head, images=images, **{KEYS["images"]: images | {"deprecated": True}}),
        "ImageBody": {"oneOf": [_closed("image", image=base64, **asked), _closed("url", url=_TEXT, **asked)]},
        "ImagesBody": {
            "oneOf": [
                _closed("images", images=_list(base64, **most), **asked),
                _closed("urls", urls=_list(_TEXT, **most), **asked),
            ],
        },
        "ImageForm": _object(["file"], file=_BINARY, **form),
        "ImagesForm": _object(["files"], files=_list(_BINARY, **most), **form),
        "Feedback": _closed(
            "id",
            id={**_TEXT, "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"},
            image={"type": "integer", "minimum": 0, "maximum": 99_999},
            verdict={**_TEXT, "enum": list(VERDICTS)},
            objects=_list(_closed("box class", box=box, **{"class": {**_TEXT, "maxLength": 256}}), maxItems=1000),
            note={**_TEXT, "maxLength": 1000},
        ),
        "FeedbackAnswer": _object(id=_TEXT, known=_TRUTH),
        "Models": _object(models=_list(_object(["name", "version", "state"]))),
    }


def _inference_schemas() -> Schema:
    head: Schema = {"name": _TEXT, "datatype": {**_TEXT, "enum": list(DATATYPES)}}
    sizes = _list({"type": "integer", "minimum": 0}, maxItems=8)
    parameters = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    tensors = _list(_object(**head, shape=_list(_WHOLE, maxItems=8)))
    given = {**head, "shape": sizes, "data": {"type": "array"}}
    return {
        "Live": _object(live=_TRUTH),
        "Ready": _object(ready=_TRUTH),
        "ModelReady": {"anyOf": [_object(name=_TEXT, ready=_TRUTH), {"type": "object"}]},
        "Server": _object(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
        "Model": _object(name=_TEXT, versions=_list(_TEXT), platform=_TEXT, inputs=tensors, outputs=tensors),
        "Infer": _object(
            ["inputs"],
            id={**_TEXT, "pattern": "^[A-Za-z0-9._:/+=@-]{0,128}$"},
            parameters=parameters,
            inputs=_list(_object(given, **given, parameters=parameters)),
            outputs=_list(_object(["name"], name=_TEXT, parameters=parameters)),
        ),
        "InferAnswer": _object(model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs=tensors),
    }
