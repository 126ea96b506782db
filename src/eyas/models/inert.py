"""Reading what `torch.save` wrote as data alone: no function or class that a file names is ever called.

A pickle is a small program: it says which functions to call. Here every name in it stands for an inert record of this
module, whatever the file does with it, so the result is numbers, text, containers, `Record`s and `TensorRecord`s; the
few that mean data (NumPy's scalars and arrays, tensors, ordered dicts) are read by code of our own that checks them.
Names that no trainer writes are refused nevertheless: such a file wants something else than to be read.
"""

from __future__ import annotations

import math
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

DEEPEST = 40  # containers within containers, of what a checkpoint says of its pictures
MAX_PICKLE = 256 << 20  # bytes of the program; the tensors lie beside it. An optimizer's state of L takes some MB

# Storage classes of torch -> the type of their elements.
STORAGES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What trainers write beside weights, as records: names, and packages whose classes may be anything.
PLAIN = frozenset({
    "numpy.ndarray", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer", "collections.OrderedDict",
    "collections.defaultdict", "collections.Counter", "collections.deque", "_codecs.encode", "copyreg._reconstructor",
    "builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.slice", "builtins.range",
    "builtins.int", "builtins.float", "builtins.str", "builtins.bool", "builtins.list",
    "builtins.dict", "builtins.tuple", "builtins.object", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath",
    "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "datetime.datetime", "datetime.date", "datetime.timedelta",
    "typing.Any", "typing.Union", "torch.Size", "torch.device", "torch.torch_version.TorchVersion",
    "argparse.Namespace", "easydict.EasyDict", "addict.addict.Dict",
})  # fmt: skip
PACKAGES = ("super_gradients.", "omegaconf.", "torch.nn.", "torch.optim.", "torchmetrics.")
DTYPE = re.compile(r"[biuf][1248]|[SU]\d{1,6}|\?")


class ForeignCodeError(Exception):
    """A file names something that only running code would need; the message is its name."""


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


class Content:
    """What a file of `torch.save` holds.

    Attributes:
        root: numbers, text, containers, `Record`s and `TensorRecord`s.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the tensors' elements.

        Raises:
            ForeignCodeError: the file names what no data needs.
            ValueError: it is no such file, or damaged.
        """
        self.path = path
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("no archive of torch.save")
            self._prefix = names[0].removesuffix("data.pkl")
            if f"{self._prefix}constants.pkl" in archive.namelist():
                raise ForeignCodeError("TorchScript")
            if _stored(archive, names[0]).file_size > MAX_PICKLE:
                raise ValueError("its description of the tensors is too large")
            order = f"{self._prefix}byteorder"
            written = archive.read(_stored(archive, order)) if order in archive.namelist() else b"little"
            self._swapped = written != sys.byteorder.encode()
            with archive.open(names[0]) as file:
                self.root = _Reader(file).load()

    def tensors(self, records: Mapping[str, TensorRecord]) -> dict[str, Tensor]:
        """Return the tensors by name, on the CPU.

        Raises:
            ValueError: an entry is missing or does not fit its storage.
        """
        with zipfile.ZipFile(self.path) as archive:
            return {name: self._tensor(archive, record) for name, record in records.items()}

    def _tensor(self, archive: zipfile.ZipFile, record: TensorRecord) -> Tensor:
        """Return one tensor, with memory of its own."""
        width = record.dtype.itemsize
        data = bytearray(archive.read(_stored(archive, f"{self._prefix}data/{record.storage.key}")))
        reach = record.offset + 1 + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True))
        count = math.prod(record.size)
        if count == 0:
            return torch.empty(record.size, dtype=record.dtype)
        if reach * width > len(data) or count * width > len(data):
            raise ValueError("a tensor reaches beyond its storage")
        del data[len(data) // width * width :]
        if self._swapped and width > 1:
            data = bytearray(np.frombuffer(data, f"u{width}").byteswap().tobytes())
        flat = torch.frombuffer(data, dtype=record.dtype)
        return flat.as_strided(record.size, record.stride, record.offset).clone()


def _stored(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return the entry if it is stored as it is, as torch does: one that is packed could hold any amount."""
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return entry


class _Reader(pickle.Unpickler):
    """Reads a pickle with every name in it replaced; the replacements are made anew for each file."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self._known: dict[str, Any] = {}

    def load(self) -> Any:
        """Return the content; whatever a damaged pickle raises is a ValueError."""
        try:
            return super().load()
        except (ForeignCodeError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"its pickle can't be read: {error}") from None

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        module = {"__builtin__": "builtins"}.get(module, module)
        full = f"{module}.{name}"
        if full not in self._known:
            self._known[full] = _stand_in(full)
        return self._known[full]

    def persistent_load(self, pid: Any) -> Storage:
        """Return the record of a storage."""
        kind, storage, key, _, numel = pid
        if kind != "storage" or not isinstance(key, str) or not re.fullmatch(r"\w{1,40}", key):
            raise ValueError("an unknown kind of storage")
        dtype = storage if isinstance(storage, torch.dtype) else None
        return Storage(dtype, key, _count(numel))


def _stand_in(full: str) -> Any:
    """Return what stands for a name, new at each call: what a file does to it ends with the file.

    Raises:
        ForeignCodeError: data don't need it.
    """
    package, _, name = full.rpartition(".")
    if package in ("torch", "torch.storage"):
        if name in STORAGES:
            return STORAGES[name]
        if name in ("UntypedStorage", "TypedStorage"):
            return None
        dtype = getattr(torch, name, None) if re.fullmatch(r"b?float\d+|u?int\d+|bool", name) else None
        if isinstance(dtype, torch.dtype):
            return dtype
    if full in REBUILDERS:
        return _callable(REBUILDERS[full])
    if full in ("collections.OrderedDict", "collections.defaultdict", "collections.Counter"):
        return type(name, (dict,), {"__init__": _fill})
    if full in PLAIN or full.startswith(PACKAGES):
        return type("Record", (Record,), {"kind": full})
    raise ForeignCodeError(full)


def _fill(self: dict[Any, Any], *args: Any) -> None:
    """Fill a dict with the pairs that it is made of; the factory of a defaultdict is left out."""
    pairs = args[-1] if args else ()
    if isinstance(pairs, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        self.update((pair[0], pair[1]) for pair in pairs)


def _callable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a new function that does the same."""
    return lambda *args: function(*args)


def _count(value: Any) -> int:
    """Return a size, offset or stride; anything but a number from 0 on is refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**48:
        _refuse("a tensor's shape is no shape")
    return int(value)


def _refuse(problem: str) -> NoReturn:
    raise ValueError(problem)


def _tensor_of(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    """Return the record of a tensor (torch's second and third way of writing one)."""
    dtype = rest[2] if len(rest) > 2 and isinstance(rest[2], torch.dtype) else getattr(storage, "dtype", None)
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        _refuse("a tensor without a storage, or of an unknown type")
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 16:
        _refuse("a tensor's shape is no shape")
    return TensorRecord(storage, _count(offset), tuple(map(_count, size)), tuple(map(_count, stride)), dtype)


def _parameter_of(data: Any, *_: Any) -> Any:
    """Return the tensor of a parameter."""
    return data if isinstance(data, TensorRecord) else _refuse("a parameter without a tensor")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes that were written as text, as pickles of protocol 2 do."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        _refuse("bytes in an unknown form")
    return text.encode("latin-1")


def _bytes_of(*args: Any) -> bytes:
    """Return no bytes, which pickles of protocol 2 write as a call of the type without arguments."""
    return b"" if not args else _refuse("bytes in an unknown form")


def _scalar_of(dtype: Any, data: Any = b"") -> Any:
    """Return a NumPy scalar as Python's number, truth value or text."""
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
            _refuse("its description of the pictures has no end")
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
    if math.prod(map(_count, shape)) * kind.itemsize != len(data):
        return None
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C").tolist()
