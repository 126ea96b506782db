"""The Open RestInference Protocol over HTTP: its addresses below /v2, and their bodies.

A body is JSON, or JSON followed by raw tensors (the binary extension).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request as Http
from starlette.responses import Response

from eyas.errors import UserError
from eyas.registry.base import check_alias
from eyas.serve import jsons
from eyas.serve.api import Answer
from eyas.serve.errors import ServeError, quoted
from eyas.serve.http.detect import while_connected
from eyas.serve.http.middleware import context_of
from eyas.serve.http.responses import JSON, reply
from eyas.serve.limits import Limits, check_model
from eyas.serve.oip.detection import (
    InferRequest,
    Parameter,
    check_load,
    check_output,
    find_model,
    model_metadata,
    repository_index,
    server_metadata,
    to_request,
    to_tensors,
)
from eyas.serve.oip.images import (
    BYTES,
    IMAGES,
    MAX_TENSORS,
    Images,
    check_names,
    checked_shape,
    from_files,
    from_raw,
    from_text,
)
from eyas.serve.service import Service, passed_on

HEADER = "inference-header-content-length"
MAX_SHAPE_TEXT = 256  # letters
MOST_ADMIN = 16 * 2**10  # bytes of what the admin says


@dataclass(frozen=True)
class RestInference:
    """The handlers."""

    service: Service

    async def server(self, _http: Http) -> Response:
        """Tell what server this is."""
        return reply(server_metadata())

    async def live(self, _http: Http) -> Response:
        """Tell that the server answers."""
        return reply({"live": True})

    async def ready(self, _http: Http) -> Response:
        """Tell whether new requests are welcome: 200, or 503."""
        welcome = self.service.ready()
        told = {"ready": welcome, **{name: tell() for name, tell in self.service.details.items()}}
        return reply(told, 200 if welcome else 503, None if welcome else {"retry-after": "1"})

    async def model(self, http: Http) -> Response:
        """Tell a model's tensors, versions and classes."""
        return reply(model_metadata(self.service.engine, *self._name(http)))

    async def model_ready(self, http: Http) -> Response:
        """Tell whether a model takes requests: 200, 503, or 404 where there is none."""
        name, version = self._name(http)
        ready = find_model(self.service.engine, name, version).state == "ready"
        return reply({"name": name, "ready": ready}, 200 if ready else 503, None if ready else {"retry-after": "1"})

    async def infer(self, http: Http) -> Response:
        """Detect on the images of a tensor."""
        name, version = self._name(http)
        context, header, body = context_of(http.scope), http.headers.get(HEADER), await http.body()
        size = json_size(header, len(body))
        infer = await self.service.desk.read(size, parse_request, body, header, self.service.limits)
        request = to_request(
            infer, model=name, version=version, request_id=context.id, headers=passed_on(context.headers)
        )
        answer = await while_connected(http.receive, self.service.detect(request, protocol="oip", trace=context.trace))
        content, length = answer_body(answer, infer)
        if length is None:
            return Response(content, media_type=JSON)
        return Response(content, headers={HEADER: str(length)}, media_type="application/octet-stream")

    def _name(self, http: Http) -> tuple[str, str]:
        return http.path_params["model"], http.path_params.get("version", "")


@dataclass(frozen=True)
class RestRepository:
    """The repository extension, for the admin's port."""

    service: Service

    async def index(self, http: Http) -> Response:
        """List the models; with {"ready": true} those that take requests."""
        fields = await self._fields(http)
        return reply(repository_index(self.service.engine, ready=fields.get("ready") is True))

    async def load(self, http: Http) -> Response:
        """Load a model that the registry knows, and answer when it is ready."""
        key = await self.service.engine.load(*await self._model(http))
        return reply({"name": key.name, "version": key.version})

    async def unload(self, http: Http) -> Response:
        """Let a model answer what it has accepted, and free it."""
        await self.service.engine.unload(*await self._model(http))
        return reply({})

    async def alias(self, http: Http) -> Response:
        """Let an alias point to a version from now on."""
        fields = await self._fields(http)
        version = fields.get("version")
        if not isinstance(version, str) or not version:
            raise ServeError("invalid", "'version' must name a version.")
        model, alias = http.path_params["model"], http.path_params["alias"]
        check_model(model, version)
        try:
            check_alias(alias)
        except UserError as error:
            words = f"{quoted(alias)} is not a valid alias; expected: {error.expected}."
            raise ServeError("invalid", words) from None
        self.service.engine.alias(model, alias, version)
        return reply({"name": model, "alias": alias, "version": version})

    async def _fields(self, http: Http) -> dict[str, Any]:
        body = await http.body()
        return jsons.parse(body, dict[str, Any], most=MOST_ADMIN) if body.strip() else {}

    async def _model(self, http: Http) -> tuple[str, str]:
        """Return the name in the path, and the version in the parameters."""
        given = (await self._fields(http)).get("parameters", {})
        if not isinstance(given, dict):
            raise ServeError("invalid", "'parameters' must be an object.")
        model, version = http.path_params["model"], given.get("version", "")
        if not isinstance(version, str):
            raise ServeError("invalid", "'version' must be text.")
        check_load(model, version, given)
        return model, version


class _Input(msgspec.Struct):
    """An entry of "inputs"; what may be long in it is not looked at before its type and shape are known."""

    name: str
    datatype: str
    shape: msgspec.Raw
    parameters: dict[str, Parameter] = {}
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Parameter] = {}


class _Request(msgspec.Struct):
    """The JSON of a request; fields that the protocol may get are passed over."""

    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] | None = None
    parameters: dict[str, Parameter] = {}


def json_size(header_length: str | None, total: int) -> int:
    """Return how many bytes of a body are JSON: all, unless a header says how many.

    Raises:
        ServeError: the header makes no sense.
    """
    if header_length is None:
        return total
    if not re.fullmatch(r"[0-9]{1,18}", header_length) or not 0 < int(header_length) <= total:
        raise ServeError("invalid", f"{HEADER} must be the length of the JSON, at most that of the body.")
    return int(header_length)


def parse_request(body: bytes, header_length: str | None, limits: Limits) -> InferRequest:
    """Return the request in a body: JSON, followed by the raw tensor where the input announces `binary_data_size`.

    Raises:
        ServeError: whatever is wrong with it.
    """
    size = json_size(header_length, len(body))
    request = jsons.parse(memoryview(body)[:size], _Request, most=limits.json)
    outputs = request.outputs or []
    for what, entries in (("inputs", request.inputs), ("outputs", outputs)):
        if len(entries) > MAX_TENSORS:
            raise ServeError("invalid", f"'{what}' has {len(entries)} entries; at most {MAX_TENSORS} are allowed.")
    check_names([entry.name for entry in request.inputs])
    images = _images(request.inputs[0], memoryview(body)[size:], limits)
    binary = bool(request.parameters.get("binary_data_output", False))
    for each in outputs:
        check_output(each.name, bool(each.parameters.get("classification")))
    wanted = {each.name: bool(each.parameters.get("binary_data", binary)) for each in outputs}
    return InferRequest(request.id, images, wanted, request.parameters, binary)


def _images(entry: _Input, rest: memoryview, limits: Limits) -> Images:
    """Return the images of the input, all of whose bytes are behind the JSON where they are not in it."""
    datatype, data = entry.datatype, bytes(entry.data)
    if len(entry.shape) > MAX_SHAPE_TEXT:
        raise ServeError("invalid", f"The shape of '{IMAGES}' is too long.")
    try:
        sizes = msgspec.json.decode(entry.shape, type=list[int])
    except (msgspec.DecodeError, ValueError):
        raise ServeError("invalid", f"The input '{IMAGES}' needs a shape, a list of sizes.") from None
    shape = checked_shape(datatype, sizes, limits)
    size = entry.parameters.get("binary_data_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest)):
        raise ServeError("invalid", f"The input '{IMAGES}' announces more or fewer raw bytes than were sent.")
    if len(rest) != (size or 0):
        raise ServeError("invalid", f"{len(rest) - (size or 0)} raw bytes belong to no input.")
    if size is not None:
        if data:
            raise ServeError("invalid", f"The input '{IMAGES}' has both JSON data and raw bytes.")
        return from_raw(datatype, shape, rest)
    if not data.startswith(b"["):
        raise ServeError("invalid", f"The input '{IMAGES}' has no data: a list, or raw bytes behind the JSON.")
    return from_files(shape, _files(data)) if datatype == BYTES else from_text(shape, data)


def _files(data: bytes) -> list[bytes]:
    """Return the files in the JSON data, a list of base64 texts, or of lists of one."""
    try:
        texts = msgspec.json.decode(data, type=list[str | tuple[str]])
    except (msgspec.DecodeError, ValueError):
        raise ServeError("invalid", f"The data of '{IMAGES}' must be base64 texts, a file each.") from None
    where = f"An item of '{IMAGES}'"
    return [jsons.from_base64(text if isinstance(text, str) else text[0], where) for text in texts]


def answer_body(answer: Answer, infer: InferRequest) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON where raw tensors follow (None where none do)."""
    entries, raw = [], []
    for name, datatype, array in to_tensors(answer, infer.outputs):
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if infer.outputs.get(name, infer.binary):
            raw.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    document = {
        "model_name": answer.model.name,
        "model_version": answer.model.version,
        "id": answer.id,
        "outputs": entries,
    }
    text = jsons.dump(document)
    return b"".join([text, *raw]), len(text) if raw else None
