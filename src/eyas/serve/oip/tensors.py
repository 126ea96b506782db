"""Tensors of the Open Inference Protocol: types, shapes, and their three encodings (raw, BYTES, JSON).

A shape is believed only after it was held against the bytes that really came: a shape of 2^62 costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

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
        raise ServeError("invalid", f"The shape of {quoted(name)} must hold sizes, 0 or more.")
    return tuple(shape)


def check_datatype(datatype: str, name: str) -> None:
    """Refuse a datatype that the protocol does not have."""
    if datatype != BYTES and datatype not in DATATYPES:
        raise ServeError("invalid", f"The tensor {quoted(name)} has the unknown datatype {quoted(datatype)}.")


def from_raw(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Tensor:
    """Return the tensor in raw bytes: little-endian numbers, or BYTES with a length of 4 bytes before each item.

    Raises:
        ServeError: the bytes are not what datatype and shape say.
    """
    check_datatype(datatype, name)
    count = math.prod(shape)
    if datatype == BYTES:
        items = split_bytes(data, name)
        _check_count(len(items), count, name)
        return Tensor(name, datatype, shape, items=items)
    kind = DATATYPES[datatype]
    if len(data) != count * kind.itemsize:
        raise ServeError(
            "invalid", f"The tensor {quoted(name)} has {len(data)} bytes; its shape asks for {count * kind.itemsize}."
        )
    return Tensor(name, datatype, shape, np.frombuffer(data, kind).reshape(shape))


def split_bytes(data: bytes | memoryview, name: str) -> tuple[bytes, ...]:
    """Return the items of a BYTES tensor."""
    items, at, end = [], 0, len(data)
    view = memoryview(data)
    while at < end:
        size = int.from_bytes(view[at : at + 4], "little")
        if at + 4 > end or at + 4 + size > end:
            raise ServeError("invalid", f"An item of {quoted(name)} is said to be longer than what was sent.")
        items.append(bytes(view[at + 4 : at + 4 + size]))
        at += 4 + size
    return tuple(items)


def from_values(name: str, datatype: str, shape: tuple[int, ...], values: Iterable[Any]) -> Tensor:
    """Return the tensor of a flat row of numbers, truths, or (for BYTES) byte strings.

    Raises:
        ServeError: there are more or fewer values than the shape says, or one does not fit the datatype.
    """
    check_datatype(datatype, name)
    row = list(values)
    _check_count(len(row), math.prod(shape), name)
    if datatype == BYTES:
        if not all(isinstance(value, bytes) for value in row):
            raise ServeError("invalid", f"The tensor {quoted(name)} must hold byte strings.")
        return Tensor(name, datatype, shape, items=tuple(row))
    return Tensor(name, datatype, shape, _numbers(name, datatype, row).reshape(shape))


def _numbers(name: str, datatype: str, row: list[Any]) -> Array:
    """Return the values as an array of the datatype; each must fit."""
    kind = DATATYPES[datatype]
    wanted: tuple[type, ...] = {"b": (bool,), "f": (int, float)}.get(kind.kind, (int,))
    if not all(isinstance(value, wanted) and (kind.kind == "b") == isinstance(value, bool) for value in row):
        raise ServeError("invalid", f"A value of {quoted(name)} is no {datatype}.")
    try:
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            if row and not (limits.min <= min(row) and max(row) <= limits.max):
                raise ServeError("invalid", f"A value of {quoted(name)} does not fit into {datatype}.")
        return np.array(row, kind)
    except OverflowError:
        raise ServeError("invalid", f"A value of {quoted(name)} does not fit into {datatype}.") from None


def _check_count(found: int, expected: int, name: str) -> None:
    if found != expected:
        raise ServeError("invalid", f"The tensor {quoted(name)} has {found} values; its shape asks for {expected}.")


def to_raw(tensor: Tensor) -> bytes:
    """Return the tensor's raw bytes."""
    if tensor.array is None:
        return b"".join(len(item).to_bytes(4, "little") + item for item in tensor.items)
    return np.ascontiguousarray(tensor.array, DATATYPES[tensor.datatype]).tobytes()


def quoted(name: str) -> str:
    """Return the client's word for an error message: short, and without what a terminal or a log would obey."""
    return ascii(name[:64])
