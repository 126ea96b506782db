"""The OpenAPI document of the public application; tests hold it against the routes and fuzz the server with it."""

from __future__ import annotations

from typing import Any, get_args

from eyas.serve.api import Lane
from eyas.serve.errors import WIRES
from eyas.serve.http.feedback import VERDICTS
from eyas.serve.limits import Limits
from eyas.serve.oip.tensors import BYTES, DATATYPES
from eyas.types import Suppression

Schema = dict[str, Any]
_REFUSALS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 499, 500, 503, 504)


def document(limits: Limits) -> Schema:
    """Return the document for a server with these limits."""
    from importlib.metadata import version

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Eyas",
            "version": version("eyas"),
            "description": "Object detection. The addresses below /v2 are the Open Inference Protocol's.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **_detect_paths(limits),
            **_inference_paths(),
            **_probe_paths(),
            "/v1/models": {"get": _operation("List the versions that are served", "models", {"200": _json("Models")})},
            "/openapi.json": {"get": _operation("This document", "openapi", {"200": _json()})},
            "/": {"get": _operation("A page to try an image", "page", {"200": _content("text/html")})},
            "/metrics": {"get": _operation("Prometheus metrics", "metrics", {"200": _content("text/plain")})},
        },
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _operation(summary: str, name: str, responses: Schema, refusals: tuple[int, ...] = (400, 401, 403, 500)) -> Schema:
    refused = {str(status): {"$ref": "#/components/schemas/Refusal"} for status in refusals}
    answers = {
        status: {"description": _reason(int(status)), "content": {"application/json": {"schema": schema}}}
        for status, schema in refused.items()
    }
    return {"summary": summary, "operationId": name, "responses": {**answers, **responses}}


def _reason(status: int) -> str:
    return next((kind.replace("_", " ") for kind, wire in WIRES.items() if wire.http == status), "refused")


def _json(name: str = "") -> Schema:
    schema: Schema = {"$ref": f"#/components/schemas/{name}"} if name else {"type": "object"}
    return {"description": "the answer", "content": {"application/json": {"schema": schema}}}


def _content(kind: str) -> Schema:
    return {"description": "the answer", "content": {kind: {"schema": {"type": "string"}}}}


def _detect_paths(limits: Limits) -> Schema:
    binary = {"schema": {"type": "string", "format": "binary"}}
    raw = dict.fromkeys(("image/jpeg", "image/png", "image/webp"), binary)
    one = _operation("Detect on one image", "detect", {"200": _json("Image")}, _REFUSALS)
    one["responses"]["200"]["content"]["image/jpeg"] = binary
    one["requestBody"] = _body({**raw, **_json("ImageBody")["content"], **_json_as_form("ImageForm")})
    many = _operation("Detect on several images", "detect_batch", {"200": _json("Images")}, _REFUSALS)
    many["requestBody"] = _body({**_json("ImagesBody")["content"], **_json_as_form("ImagesForm")})
    for operation in (one, many):
        operation["parameters"] = _query(limits)
    feedback = _operation(
        "Say what was right or wrong about an answer", "feedback", {"202": _json("FeedbackAnswer")}, _REFUSALS
    )
    feedback["requestBody"] = _body(_json("Feedback")["content"])
    return {
        "/v1/detect": {"post": one},
        "/v1/detect/batch": {"post": many},
        "/v1/feedback": {"post": feedback},
    }


def _body(content: Schema) -> Schema:
    return {"required": True, "content": content}


def _json_as_form(name: str) -> Schema:
    return {"multipart/form-data": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _query(limits: Limits) -> list[Schema]:
    fields = {name: schema for name, schema in _asked(limits).items() if name != "classes"}
    fields["classes"] = {"type": "string", "description": "names of the only classes wanted, commas between them"}
    return [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]


def _asked(limits: Limits) -> Schema:
    """Return the fields that query, JSON and form share."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "model": {"type": "string", "description": "the model's name; the default one without it"},
        "version": {"type": "string", "description": "a version, or an alias as @champion"},
        "conf": {**share, "description": "least score"},
        "iou": {**share, "description": "overlap above which the weaker box of a class is dropped"},
        "suppression": {"type": "string", "enum": list(get_args(Suppression))},
        "classes": {"type": "array", "items": {"type": "string"}},
        "max_detections": {"type": "integer", "minimum": 1, "maximum": limits.detections},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": limits.timeout, "description": "seconds"},
        "priority": {"type": "string", "enum": list(get_args(Lane))},
    }


def _inference_paths() -> Schema:
    paths: Schema = {"/v2": {"get": _operation("The server", "server_metadata", {"200": _json("Server")})}}
    for prefix, suffix, names in (
        ("/v2/models/{model}", "", ("model",)),
        ("/v2/models/{model}/versions/{version}", "_version", ("model", "version")),
    ):
        parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
        known = (400, 401, 403, 404, 500)
        operations = {
            "": ("get", "A model's tensors", "model_metadata", {"200": _json("Model")}, known),
            "/ready": ("get", "Whether a model takes requests", "model_ready", _ready("ModelReady"), known),
            "/infer": ("post", "Detect on a tensor of images", "infer", {"200": _json("InferAnswer")}, _REFUSALS),
        }
        for path, (method, summary, name, responses, refusals) in operations.items():
            operation = _operation(summary, name + suffix, responses, refusals)
            operation["parameters"] = parameters
            if method == "post":
                operation["requestBody"] = _body(_json("Infer")["content"])
                operation["responses"]["200"]["content"]["application/octet-stream"] = {"schema": {"type": "string"}}
            paths[prefix + path] = {method: operation}
    return paths


def _probe_paths() -> Schema:
    live = {"200": _json("Live")}
    return {
        "/livez": {"get": _operation("Whether the server answers", "livez", live)},
        "/v2/health/live": {"get": _operation("Whether the server answers", "server_live", live)},
        "/readyz": {"get": _operation("Whether requests are welcome", "readyz", _ready("Ready"))},
        "/v2/health/ready": {"get": _operation("Whether requests are welcome", "server_ready", _ready("Ready"))},
    }


def _ready(name: str) -> Schema:
    return {"200": _json(name), "503": _json(name)}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _closed(required: list[str], **properties: Schema) -> Schema:
    """Return an object that may have no other fields: what a client sends is never ignored."""
    return {**_object(required, **properties), "additionalProperties": False}


def _list(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _schemas(limits: Limits) -> Schema:
    text, number, whole = {"type": "string"}, {"type": "number"}, {"type": "integer"}
    truth, texts = {"type": "boolean"}, {"type": "array", "items": {"type": "string"}}
    box = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
    asked = _asked(limits)
    form = {**asked, "classes": text}
    head = {
        "id": text,
        "model": _object(["name", "version"], name=text, version=text),
        "milliseconds": {"type": "object"},
    }
    found = {"height": whole, "width": whole, "detections": _list("Detection")}
    file, base64 = {"type": "string", "format": "binary"}, {**text, "description": "base64"}
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": limits.images}
    images = {"type": "array", "items": base64, "minItems": 1, "maxItems": limits.images}
    return {
        "Refusal": _object(["error", "kind"], error=text, kind={"type": "string", "enum": list(WIRES)}),
        "Detection": _object(["box", "score", "label", "class"], box=box, score=number, label=whole, **{"class": text}),
        "Image": _object([*head, *found], **head, **found),
        "Images": _object(
            [*head, "images"],
            **head,
            images={
                "type": "array",
                "description": "one for each image, in order: its detections, or why it has none",
                "items": {"anyOf": [_object([*found], **found), {"$ref": "#/components/schemas/Refusal"}]},
            },
        ),
        "ImageBody": {
            "oneOf": [_closed(["image"], image=base64, **asked), _closed(["url"], url=text, **asked)],
        },
        "ImagesBody": {
            "oneOf": [
                _closed(["images"], images=images, **asked),
                _closed(["urls"], urls={**texts, "minItems": 1, "maxItems": limits.images}, **asked),
            ],
        },
        "ImageForm": _object(["file"], file=file, **form),
        "ImagesForm": _object(["files"], files=files, **form),
        "Feedback": _closed(
            ["id"],
            id={"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"},
            image={"type": "integer", "minimum": 0, "maximum": 99_999},
            verdict={"type": "string", "enum": list(VERDICTS)},
            objects={
                "type": "array",
                "items": _closed(["box", "class"], box=box, **{"class": {"type": "string", "maxLength": 256}}),
                "maxItems": 1000,
            },
            note={"type": "string", "maxLength": 1000},
        ),
        "FeedbackAnswer": _object(["id", "known"], id=text, known=truth),
        "Models": _object(["models"], models={"type": "array", "items": _object(["name", "version", "state"])}),
        "Live": _object(["live"], live=truth),
        "Ready": _object(["ready"], ready=truth),
        "ModelReady": {"anyOf": [_object(["name", "ready"], name=text, ready=truth), {"type": "object"}]},
        "Server": _object(["name", "version", "extensions"], name=text, version=text, extensions=texts),
        **_tensor_schemas(),
    }


def _tensor_schemas() -> Schema:
    text = {"type": "string"}
    shape = {"type": "array", "items": {"type": "integer"}, "maxItems": 8}
    datatype = {"type": "string", "enum": [*DATATYPES, BYTES]}
    sizes = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 8}
    head: Schema = {"name": text, "datatype": datatype}
    parameters = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    metadata = _object(["name", "datatype", "shape"], **head, shape=shape)
    return {
        "Model": _object(
            ["name", "versions", "platform", "inputs", "outputs"],
            name=text,
            versions={"type": "array", "items": text},
            platform=text,
            inputs={"type": "array", "items": metadata},
            outputs={"type": "array", "items": metadata},
        ),
        "Infer": _object(
            ["inputs"],
            id={"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{0,128}$"},
            parameters=parameters,
            inputs={
                "type": "array",
                "items": _object(
                    ["name", "datatype", "shape", "data"],
                    **head,
                    shape=sizes,
                    data={"type": "array"},
                    parameters=parameters,
                ),
            },
            outputs={"type": "array", "items": _object(["name"], name=text, parameters=parameters)},
        ),
        "InferAnswer": _object(
            ["model_name", "model_version", "id", "outputs"],
            model_name=text,
            model_version=text,
            id=text,
            outputs={"type": "array", "items": metadata},
        ),
    }
