"""Looking into an ONNX file without the package onnx: does it keep its weights in other files?

A model's text may name any path as the place of its weights, so a file from somebody else could make the engine read
what it should not. Bundles are one file; whatever points elsewhere is refused before an engine sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from eyas.errors import UserError
from eyas.files import open_regular

# Message -> its fields that hold messages in which a tensor may lie (onnx.proto): field number -> message.
_INNER: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "function": {7: "node"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {},
    }
)
_MAX_DEPTH = 100  # messages in messages, protobuf's own limit
_MAX_BYTES = 2**31  # protobuf's own limit too
_EXTERNAL_DATA = 13  # TensorProto.external_data
_DATA_LOCATION = 14  # TensorProto.data_location; 1 is EXTERNAL


def read_onnx(path: Path) -> bytes:
    """Return the bytes of an ONNX file that needs no other file.

    Raises:
        UserError: it is not an ONNX file, or names external data.
    """
    with open_regular(path, max_bytes=_MAX_BYTES) as file:
        data = file.read()
    try:
        external = has_external_data(data)
    except (IndexError, ValueError):
        raise UserError(f"{path.name} is not an ONNX file, or it is truncated.", where=str(path)) from None
    if external:
        raise UserError(
            f"{path.name} refers to other files for its weights; these are not read.",
            where=str(path),
            expected="an ONNX file that contains its weights",
        )
    return data


def has_external_data(data: bytes) -> bool:
    """Return whether any tensor of the serialized model lies in another file.

    Raises:
        IndexError, ValueError: these are not the bytes of a protocol buffer.
    """
    return _search(memoryview(data), "model")


def _search(data: memoryview, message: str, depth: int = 0) -> bool:
    """Return whether a tensor in the serialized message names an external place.

    Raises:
        IndexError, ValueError: it is no protocol buffer, or is nested deeper than protobuf itself reads.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    for number, value in _fields(data):
        if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1)):
            return True
        inner = _INNER[message].get(number)
        if inner is not None and isinstance(value, memoryview) and _search(value, inner, depth + 1):
            return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (number, value) of the fields of a serialized message; strings and messages as views."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            number, place = _varint(data, place)
            yield key >> 3, number
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("not a protocol buffer")
        if place + length > len(data):
            raise ValueError("truncated")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return the number of variable length at `place`, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("not a protocol buffer")
