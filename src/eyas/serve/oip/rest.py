"""The Open Inference Protocol's bodies over HTTP: JSON, and JSON followed by raw tensors (the binary extension)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from eyas.serve import base64s, jsons
from eyas.serve.api import Answer
from eyas.serve.errors import ServeError
from eyas.serve.oip.detection import to_tensors
from eyas.serve.oip.tensors import (
    BYTES,
    InferRequest,
    Parameter,
    RequestedOutput,
    Tensor,
    check_datatype,
    check_shape,
    from_raw,
    from_values,
    quoted,
    to_raw,
)

HEADER = "inference-header-content-length"
MAX_TENSORS = 64


def parse_request(body: bytes, header_length: str | None, *, depth: int = 32) -> InferRequest:
    """Return the request in a body.

    Args:
        body: JSON, followed by the raw tensors in the order of the inputs that announce `binary_data_size`.
        header_length: the value of the header that says where the JSON ends; None where all of it is JSON.
        depth: deepest nesting of the JSON.

    Raises:
        ServeError: whatever is wrong with it.
    """
    size = _header_length(header_length, len(body))
    fields = jsons.parse_object(memoryview(body)[:size], depth=depth)
    rest = memoryview(body)[size:]
    tensors, at, names = [], 0, set()
    for entry in _objects(fields.get("inputs"), "inputs"):
        name, datatype, shape = _head(entry)
        if name in names:
            raise ServeError("invalid", f"The input {quoted(name)} is given twice.")
        names.add(name)
        length = _parameters(entry).get("binary_data_size")
        if length is None:
            tensors.append(from_values(name, datatype, shape, _values(entry, name, datatype)))
            continue
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= len(rest) - at:
            raise ServeError("invalid", f"The input {quoted(name)} announces more or fewer raw bytes than were sent.")
        if "data" in entry:
            raise ServeError("invalid", f"The input {quoted(name)} has both JSON data and raw bytes.")
        tensors.append(from_raw(name, datatype, shape, rest[at : at + length]))
        at += length
    if at != len(rest):
        raise ServeError("invalid", f"{len(rest) - at} raw bytes belong to no input.")
    given = _parameters(fields)
    binary = given.get("binary_data_output", False)
    return InferRequest(
        id=_text(fields.get("id", ""), "id"),
        inputs=tuple(tensors),
        outputs=_outputs(fields, bool(binary)),
        parameters=given,
        binary=bool(binary),
    )


def _header_length(text: str | None, total: int) -> int:
    if text is None:
        return total
    if not re.fullmatch(r"[0-9]{1,18}", text) or not 0 < int(text) <= total:
        raise ServeError("invalid", f"{HEADER} must be the length of the JSON, at most that of the body.")
    return int(text)


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ServeError("invalid", f"'{name}' must be a list of objects.")
    if len(value) > MAX_TENSORS:
        raise ServeError("invalid", f"'{name}' has {len(value)} entries; at most {MAX_TENSORS} are allowed.")
    return value


def _head(entry: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    name, datatype = _text(entry.get("name"), "name"), _text(entry.get("datatype"), "datatype")
    check_datatype(datatype, name)
    shape = entry.get("shape")
    if not isinstance(shape, list):
        raise ServeError("invalid", f"The input {quoted(name)} needs a shape, a list of sizes.")
    return name, datatype, check_shape(shape, name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ServeError("invalid", f"'{name}' must be a text.")
    return value


def _parameters(entry: Mapping[str, Any]) -> dict[str, Parameter]:
    value = entry.get("parameters", {})
    if not isinstance(value, dict) or not all(isinstance(each, bool | int | float | str) for each in value.values()):
        raise ServeError("invalid", "'parameters' must be an object of texts, numbers and truths.")
    return value


def _values(entry: Mapping[str, Any], name: str, datatype: str) -> Iterable[Any]:
    """Yield the JSON data row by row; nested lists are flattened, texts of BYTES are base64."""
    if not isinstance(entry.get("data"), list):
        raise ServeError("invalid", f"The input {quoted(name)} has no data: a list, or raw bytes behind the JSON.")
    flat = _flatten(entry["data"])
    if datatype != BYTES:
        return flat
    if not all(isinstance(value, str) for value in flat):
        raise ServeError("invalid", f"The data of {quoted(name)} must be base64 texts, a file each.")
    return [base64s.decode(value, f"An item of {quoted(name)}") for value in flat]


def _flatten(values: list[Any]) -> list[Any]:
    while any(isinstance(value, list) for value in values):
        if not all(isinstance(value, list) for value in values):
            raise ServeError("invalid", "The data is nested unevenly.")
        values = [inner for value in values for inner in value]
    return values


def _outputs(fields: Mapping[str, Any], binary: bool) -> tuple[RequestedOutput, ...]:
    if fields.get("outputs") is None:
        return ()
    found = []
    for entry in _objects(fields["outputs"], "outputs"):
        given = _parameters(entry)
        if given.get("classification"):
            raise ServeError("invalid", "The classification extension makes no sense for a detector.")
        found.append(RequestedOutput(_text(entry.get("name"), "name"), bool(given.get("binary_data", binary))))
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
