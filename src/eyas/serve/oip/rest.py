"""The Open Inference Protocol's bodies over HTTP: JSON, and JSON followed by raw tensors (the binary extension)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from eyas.serve import base64s, jsons
from eyas.serve.api import Answer
from eyas.serve.errors import ServeError
from eyas.serve.oip.detection import to_tensors
from eyas.serve.oip.tensors import (
    BYTES,
    MAX_ITEMS,
    InferRequest,
    Parameter,
    RequestedOutput,
    Tensor,
    check_datatype,
    check_shape,
    from_raw,
    from_text,
    from_values,
    quoted,
    to_raw,
)

HEADER = "inference-header-content-length"
MAX_TENSORS = 64
MAX_SHAPE_TEXT = 256  # letters


class _Input(msgspec.Struct):
    """An entry of "inputs"; what may be long in it is not looked at before its type and shape are known."""

    name: str
    datatype: str
    shape: msgspec.Raw
    parameters: dict[str, Parameter] = {}
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    """An entry of "outputs"."""

    name: str
    parameters: dict[str, Parameter] = {}


class _Request(msgspec.Struct):
    """The JSON of a request; fields that the protocol may get are passed over."""

    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] | None = None
    parameters: dict[str, Parameter] = {}


def json_size(header_length: str | None, total: int) -> int:
    """Return how many bytes of a body are JSON.

    Args:
        header_length: the value of the header that says it; None where all of them are.
        total: how many there are.

    Raises:
        ServeError: the header makes no sense.
    """
    if header_length is None:
        return total
    if not re.fullmatch(r"[0-9]{1,18}", header_length) or not 0 < int(header_length) <= total:
        raise ServeError("invalid", f"{HEADER} must be the length of the JSON, at most that of the body.")
    return int(header_length)


def parse_request(
    body: bytes, header_length: str | None, *, most: int = 8 * 2**20, images: int = MAX_ITEMS
) -> InferRequest:
    """Return the request in a body.

    Args:
        body: JSON, followed by the raw tensors in the order of the inputs that announce `binary_data_size`.
        header_length: the value of the header that says where the JSON ends; None where all of it is JSON.
        most: most bytes of JSON.
        images: most images.

    Raises:
        ServeError: whatever is wrong with it.
    """
    size = json_size(header_length, len(body))
    request = jsons.parse(memoryview(body)[:size], _Request, most=most)
    rest = memoryview(body)[size:]
    for what, entries in (("inputs", request.inputs), ("outputs", request.outputs or ())):
        if len(entries) > MAX_TENSORS:
            raise ServeError("invalid", f"'{what}' has {len(entries)} entries; at most {MAX_TENSORS} are allowed.")
    tensors, at, names = [], 0, set()
    for entry in request.inputs:
        name = entry.name
        if name in names:
            raise ServeError("invalid", f"The input {quoted(name)} is given twice.")
        names.add(name)
        tensor = _tensor(entry, rest[at:], images)
        at += _raw_size(entry, len(rest) - at) or 0
        tensors.append(tensor)
    if at != len(rest):
        raise ServeError("invalid", f"{len(rest) - at} raw bytes belong to no input.")
    binary = bool(request.parameters.get("binary_data_output", False))
    return InferRequest(request.id, tuple(tensors), _outputs(request, binary), request.parameters, binary)


def _tensor(entry: _Input, rest: memoryview, images: int) -> Tensor:
    """Return an input's tensor, whose bytes are the first of the rest where they are not in the JSON."""
    name, datatype, data = entry.name, entry.datatype, bytes(entry.data)
    check_datatype(datatype, name)
    if len(entry.shape) > MAX_SHAPE_TEXT:
        raise ServeError("invalid", f"The shape of {quoted(name)} is too long.")
    try:
        shape = check_shape(msgspec.json.decode(entry.shape, type=list[int]), name)
    except (msgspec.DecodeError, ValueError):
        raise ServeError("invalid", f"The input {quoted(name)} needs a shape, a list of sizes.") from None
    size = _raw_size(entry, len(rest))
    if size is not None:
        if data:
            raise ServeError("invalid", f"The input {quoted(name)} has both JSON data and raw bytes.")
        return from_raw(name, datatype, shape, rest[:size], most=images)
    if not data.startswith(b"["):
        raise ServeError("invalid", f"The input {quoted(name)} has no data: a list, or raw bytes behind the JSON.")
    if datatype == BYTES:
        return from_values(name, datatype, shape, _files(data, name), most=images)
    return from_text(name, datatype, shape, data)


def _raw_size(entry: _Input, left: int) -> int | None:
    """Return how many raw bytes the input announces, None where it announces none."""
    size = entry.parameters.get("binary_data_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left):
        raise ServeError("invalid", f"The input {quoted(entry.name)} announces more or fewer raw bytes than were sent.")
    return size


def _files(data: bytes, name: str) -> list[bytes]:
    """Return the files in the JSON data, a list of base64 texts, or of lists of one."""
    try:
        texts = msgspec.json.decode(data, type=list[str | tuple[str]])
    except (msgspec.DecodeError, ValueError):
        raise ServeError("invalid", f"The data of {quoted(name)} must be base64 texts, a file each.") from None
    where = f"An item of {quoted(name)}"
    return [base64s.decode(text if isinstance(text, str) else text[0], where) for text in texts]


def _outputs(request: _Request, binary: bool) -> tuple[RequestedOutput, ...]:
    found = []
    for entry in request.outputs or ():
        if entry.parameters.get("classification"):
            raise ServeError("invalid", "The classification extension makes no sense for a detector.")
        found.append(RequestedOutput(entry.name, bool(entry.parameters.get("binary_data", binary))))
    return tuple(found)


def answer_body(answer: Answer, infer: InferRequest) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON where raw tensors follow (None where none do)."""
    binary = {output.name: output.binary for output in infer.outputs}
    entries, raw = [], []
    for tensor in to_tensors(answer, infer):
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary.get(tensor.name, infer.binary):
            raw.append(to_raw(tensor))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = _row(tensor)
        entries.append(entry)
    document = {
        "model_name": answer.model.name,
        "model_version": answer.model.version,
        "id": answer.id,
        "outputs": entries,
    }
    text = jsons.dump(document)
    return b"".join([text, *raw]), len(text) if raw else None


def _row(tensor: Tensor) -> list[Any]:
    """Return the tensor's numbers as a flat list."""
    return [] if tensor.array is None else tensor.array.ravel().tolist()
