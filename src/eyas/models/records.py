"""What a pickle means, as data: records of its objects, and readers for the few functions in it that mean data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

DEEPEST = 40  # containers within containers, of what a checkpoint says of its images
DTYPE = re.compile(r"[biuf][1248]|[SU]\d{1,6}|\?")


class Record:
    """An object that a file describes: its class's name, what it would be made of and its state; nothing is run.

    Attributes:
        kind: the full name of the class or function.
        args: what it would be called with.
        state: what it would be given afterwards, None if nothing.
        entries: what would be stored into it by key.
        elements: what would be appended to it.
    """

    kind = ""
    args: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]
    elements: list[Any]

    def __new__(cls, *args: Any) -> Record:
        """Note the arguments."""
        self = object.__new__(cls)
        self.args, self.state, self.entries, self.elements = args, None, {}, []
        return self

    def __init__(self, *args: Any) -> None:
        """Do nothing: the arguments are noted."""

    def __setstate__(self, state: Any) -> None:
        """Note the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Note an entry."""
        self.entries[key] = value

    def append(self, value: Any) -> None:
        """Note an element."""
        self.elements.append(value)


@dataclass(frozen=True)
class Storage:
    """A storage that a file names: the file in the archive that holds it, and what it holds."""

    dtype: torch.dtype | None
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that a file describes; `Content.tensor` reads it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def count_of(value: Any) -> int:
    """Return a size, offset or stride; anything but a number from 0 on is refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**48:
        refuse("a tensor has an invalid shape")
    return int(value)


def refuse(problem: str) -> NoReturn:
    """Raise a ValueError with the problem."""
    raise ValueError(problem)


def _tensor_of(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    """Return the record of a tensor (torch's second and third way of writing one)."""
    dtype = rest[2] if len(rest) > 2 and isinstance(rest[2], torch.dtype) else getattr(storage, "dtype", None)
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        refuse("a tensor without a storage, or of an unknown type")
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 16:
        refuse("a tensor has an invalid shape")
    return TensorRecord(storage, count_of(offset), tuple(map(count_of, size)), tuple(map(count_of, stride)), dtype)


def _parameter_of(data: Any, *_: Any) -> Any:
    return data if isinstance(data, TensorRecord) else refuse("a parameter without a tensor")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        refuse("bytes in an unsupported form")
    return text.encode("latin-1")


def _bytes_of(*args: Any) -> bytes:
    return b"" if not args else refuse("bytes in an unsupported form")


def _scalar_of(dtype: Any, data: Any = b"") -> Any:
    kind = dtype_of(dtype)
    if kind is None or not isinstance(data, bytes) or len(data) != kind.itemsize or not data:
        return Record(dtype, data)
    return np.frombuffer(data, kind)[0].item()


# Functions that mean data -> our own that read them.
REBUILDERS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor_of,
    "torch._utils._rebuild_tensor_v2": _tensor_of,
    "torch._utils._rebuild_tensor_v3": _tensor_of,
    "torch._utils._rebuild_parameter": _parameter_of,
    "torch._utils._rebuild_parameter_with_state": _parameter_of,
    "_codecs.encode": _encoded,
    "builtins.bytes": _bytes_of,
    "numpy.core.multiarray.scalar": _scalar_of,
    "numpy._core.multiarray.scalar": _scalar_of,
}


def dtype_of(record: Any) -> np.dtype[Any] | None:
    """Return the NumPy type that a record of one means, None if it is not of numbers, truth values or text."""
    if not isinstance(record, Record) or record.kind != "numpy.dtype" or not record.args:
        return None
    name, state = record.args[0], record.state
    if not isinstance(name, str) or not DTYPE.fullmatch(name):
        return None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=") else "="
    return np.dtype(name if name == "?" else order + name)


def plain(value: Any, limit: int = 100_000) -> Any:
    """Return the value with the records of NumPy and OmegaConf that it holds as plain numbers, text and containers.

    An array comes as nested lists; other records stay, with their states made plain.

    Raises:
        ValueError: it has more than `limit` parts, or is too deep: some things in it hold one another over and over.
    """
    left = limit

    def simple(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            refuse("its description of the images is truncated")
        if isinstance(value, dict):
            return {key: simple(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(simple(inner, depth + 1) for inner in value)
        if not isinstance(value, Record):
            return value
        if value.kind.endswith("multiarray._reconstruct"):
            return _array_of(value.state)
        if value.kind.startswith("omegaconf.") and isinstance(value.state, dict):
            return simple(value.state.get("_content", value.state.get("_val")), depth + 1)
        if value.kind in ("builtins.set", "builtins.frozenset") and value.args:
            return simple(value.args[0], depth + 1)
        value.state = simple(value.state, depth + 1)
        return value

    return simple(value, 0)


def _array_of(state: Any) -> Any:
    """Return a NumPy array's elements as nested lists, None if they are no numbers or text."""
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    _, shape, dtype, fortran, data = state
    kind = dtype_of(dtype)
    if kind is None or not kind.itemsize or not isinstance(data, bytes) or not isinstance(shape, tuple):
        return None
    if math.prod(map(count_of, shape)) * kind.itemsize != len(data):
        return None
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C").tolist()
