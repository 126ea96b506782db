"""Tensors of the Open Inference Protocol: types, shapes, and their three encodings (raw, BYTES, JSON).

A shape is believed only after it was held against the bytes that really came: a shape of 2^62 costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from eyas.serve.errors import ServeError

DATATYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)
BYTES = "BYTES"
MAX_RANK = 8
MAX_SIZE = 2**40  # numbers: more than any request holds, and far below what an array's size is counted in
MAX_ITEMS = 10_000  # byte strings of a tensor, where nothing less is asked
_SLICE = (
    64 * 2**10
)  # values, or bytes of text, that are read in one step, which nothing else of the process runs beside

Array = npt.NDArray[Any]
Parameter = bool | int | float | str


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request or an answer.

    Attributes:
        name: its name.
        datatype: a key of `DATATYPES`, or "BYTES".
        shape: sizes of the dimensions.
        array: the numbers; None for BYTES.
        items: the byte strings of BYTES, row by row.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: Array | None = None
    items: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the client names, and whether it wants it as raw bytes."""

    name: str
    binary: bool = False


@dataclass(frozen=True)
class InferRequest:
    """An inference request, whatever transport brought it.

    Attributes:
        id: the client's id, "" for none.
        inputs: the tensors.
        outputs: what it wants; () for everything.
        parameters: of the request.
        binary: whether outputs that are not named come as raw bytes.
    """

    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    binary: bool = False


def check_shape(shape: Sequence[Any], name: str) -> tuple[int, ...]:
    """Return the shape as integers; refuse what is no list of sizes."""
    if len(shape) > MAX_RANK:
        raise ServeError("invalid", f"The tensor {quoted(name)} has {len(shape)} dimensions.")
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in shape):
        raise ServeError("invalid", f"The shape of {quoted(name)} must consist of sizes, at least 0.")
    if math.prod(size for size in shape if size) > MAX_SIZE:
        raise ServeError("invalid", f"The shape of {quoted(name)} exceeds what a request can hold.")
    return tuple(shape)


def check_datatype(datatype: str, name: str) -> None:
    """Refuse a datatype that the protocol does not have."""
    if datatype != BYTES and datatype not in DATATYPES:
        raise ServeError("invalid", f"The tensor {quoted(name)} has the unknown datatype {quoted(datatype)}.")


def from_raw(
    name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview, *, most: int = MAX_ITEMS
) -> Tensor:
    """Return the tensor in raw bytes: little-endian numbers, or BYTES with a length of 4 bytes before each item.

    Args:
        name, datatype, shape: the tensor's.
        data: the bytes.
        most: most items of BYTES.

    Raises:
        ServeError: the bytes are not what datatype and shape say, or are too many items.
    """
    check_datatype(datatype, name)
    count = math.prod(check_shape(shape, name))
    if datatype == BYTES:
        _check_items(count, most, name)
        return Tensor(name, datatype, shape, items=split_bytes(data, name, count))
    kind = DATATYPES[datatype]
    if len(data) != count * kind.itemsize:
        raise ServeError(
            "invalid", f"The tensor {quoted(name)} has {len(data)} bytes; its shape requires {count * kind.itemsize}."
        )
    return Tensor(name, datatype, shape, np.frombuffer(data, kind).reshape(shape))


def split_bytes(data: bytes | memoryview, name: str, count: int) -> tuple[bytes, ...]:
    """Return the items of a BYTES tensor, which must be so many."""
    items: list[bytes] = []
    at, end = 0, len(data)
    view = memoryview(data)
    while at < end and len(items) < count:
        size = int.from_bytes(view[at : at + 4], "little")
        if at + 4 > end or at + 4 + size > end:
            raise ServeError("invalid", f"An item of {quoted(name)} is longer than the data sent.")
        items.append(bytes(view[at + 4 : at + 4 + size]))
        at += 4 + size
    if at < end:
        raise ServeError("invalid", f"The tensor {quoted(name)} has more values than the {count} of its shape.")
    _check_count(len(items), count, name)
    return tuple(items)


def from_values(
    name: str, datatype: str, shape: tuple[int, ...], values: Sequence[Any], *, most: int = MAX_ITEMS
) -> Tensor:
    """Return the tensor of a flat row of numbers, truths, or (for BYTES) byte strings.

    Args:
        name, datatype, shape: the tensor's.
        values: the row.
        most: most items of BYTES.

    Raises:
        ServeError: there are more or fewer values than the shape says, one does not fit the datatype, or there are too
            many items.
    """
    check_datatype(datatype, name)
    count = math.prod(check_shape(shape, name))
    if datatype == BYTES:
        _check_items(len(values), most, name)
        _check_count(len(values), count, name)
        items = tuple(values)
        if not all(isinstance(value, bytes) for value in items):
            raise ServeError("invalid", f"The tensor {quoted(name)} must hold byte strings.")
        return Tensor(name, datatype, shape, items=items)
    _check_count(len(values), count, name)
    slices = range(0, len(values), _SLICE)
    arrays = [_numbers(name, datatype, list(values[at : at + _SLICE])) for at in slices]
    return Tensor(name, datatype, shape, _joined(arrays, datatype).reshape(shape))


def from_text(name: str, datatype: str, shape: tuple[int, ...], text: bytes) -> Tensor:
    """Return the tensor of numbers or truths that a JSON list holds, flat or nested, which are read slice by slice.

    Args:
        name, datatype, shape: the tensor's.
        text: the list, which is known to be JSON.

    Raises:
        ServeError: it is nested unevenly, has more or fewer values than the shape says, or one that does not fit.
    """
    check_datatype(datatype, name)
    count = math.prod(check_shape(shape, name))
    wrong = ServeError("invalid", f"A value of {quoted(name)} is not a {datatype}, or does not fit into it.")
    if b'"' in text or b"{" in text:
        raise wrong
    close = text.translate(None, b" \t\r\n")
    if not _is_even(close):
        raise ServeError("invalid", "The data is nested unevenly.")
    flat = close.translate(None, b"[]")
    _check_count(flat.count(b",") + bool(flat), count, name)
    decoder = _decoder(datatype)
    arrays, at = [], 0
    while at < len(flat):
        end = flat.find(b",", at + _SLICE)
        end = len(flat) if end < 0 else end
        try:
            arrays.append(np.array(decoder.decode(b"[%b]" % flat[at:end]), DATATYPES[datatype]))
        except (msgspec.DecodeError, ValueError, OverflowError):
            raise wrong from None
        at = end + 1
    return Tensor(name, datatype, shape, _joined(arrays, datatype).reshape(shape))


def _is_even(text: bytes) -> bool:
    """Return whether between two numbers as many lists begin as end; else there are lists beside numbers."""
    for depth in range(1, MAX_RANK + 1):
        ends, begins = b"]" * depth + b",", b"," + b"[" * depth
        count = text.count(ends)
        if text.count(begins) != count or text.count(ends + begins[1:]) != count:
            return False
        if not count:
            return True
    return False


@cache
def _decoder(datatype: str) -> msgspec.json.Decoder[list[Any]]:
    """Return what reads a list of such values and no others."""
    kind = DATATYPES[datatype]
    if kind.kind == "b":
        return msgspec.json.Decoder(list[bool])
    if kind.kind == "f":
        return msgspec.json.Decoder(list[float])
    if datatype == "UINT64":  # beyond what msgspec can bound; numpy refuses what does not fit
        return msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0)]])
    limits = np.iinfo(kind)
    return msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]])


def _numbers(name: str, datatype: str, row: list[Any]) -> Array:
    """Return the values as an array of the datatype; each must fit."""
    kind = DATATYPES[datatype]
    wanted: tuple[type, ...] = {"b": (bool,), "f": (int, float)}.get(kind.kind, (int,))
    if not all(isinstance(value, wanted) and (kind.kind == "b") == isinstance(value, bool) for value in row):
        raise ServeError("invalid", f"A value of {quoted(name)} is not a {datatype}.")
    try:
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            if row and not (limits.min <= min(row) and max(row) <= limits.max):
                raise ServeError("invalid", f"A value of {quoted(name)} does not fit into {datatype}.")
        return np.array(row, kind)
    except OverflowError:
        raise ServeError("invalid", f"A value of {quoted(name)} does not fit into {datatype}.") from None


def _joined(arrays: list[Array], datatype: str) -> Array:
    return np.concatenate(arrays) if arrays else np.zeros(0, DATATYPES[datatype])


def _check_items(count: int, most: int, name: str) -> None:
    if count > most:
        raise ServeError("too_large", f"{quoted(name)} has {count} items in a request; at most {most} are allowed.")


def _check_count(found: int, expected: int, name: str) -> None:
    if found != expected:
        raise ServeError("invalid", f"The tensor {quoted(name)} has {found} values; its shape requires {expected}.")


def to_raw(tensor: Tensor) -> bytes:
    """Return the tensor's raw bytes."""
    if tensor.array is None:
        return b"".join(len(item).to_bytes(4, "little") + item for item in tensor.items)
    return np.ascontiguousarray(tensor.array, DATATYPES[tensor.datatype]).tobytes()


def quoted(name: str) -> str:
    """Return the client's word for an error message: short, and without what a terminal or a log would obey."""
    return ascii(name[:64])
