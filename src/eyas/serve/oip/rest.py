"""The Open Inference Protocol's bodies over HTTP: JSON, and JSON followed by raw tensors (the binary extension)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from eyas.serve import jsons
from eyas.serve.api import Answer
from eyas.serve.errors import ServeError
from eyas.serve.limits import Limits
from eyas.serve.oip.detection import InferRequest, Parameter, check_output, to_tensors
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

HEADER = "inference-header-content-length"
MAX_SHAPE_TEXT = 256  # letters


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
