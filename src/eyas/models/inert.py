"""Reading what `torch.save` wrote as data alone: no function or class that a file names is ever called.

A pickle is a small program: it says which functions to call. Here every name in it stands for an inert record
(`eyas.models.records`), whatever the file does with it, so the result is numbers, text, containers, `Record`s and
`TensorRecord`s; the few names that mean data (NumPy's scalars, tensors, ordered dicts) are read by code of our own that
checks them. Names that no trainer writes are refused nevertheless: such a file wants something else than to be read.
"""

from __future__ import annotations

import math
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from eyas.models.records import REBUILDERS, Record, Storage, TensorRecord, count_of

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
    "numpy.ndarray", "numpy.dtype",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer", "collections.OrderedDict",
    "collections.defaultdict", "collections.Counter", "collections.deque", "copyreg._reconstructor",
    "builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.slice", "builtins.range",
    "builtins.int", "builtins.float", "builtins.str", "builtins.bool", "builtins.list",
    "builtins.dict", "builtins.tuple", "builtins.object", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath",
    "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "datetime.datetime", "datetime.date", "datetime.timedelta",
    "typing.Any", "typing.Union", "torch.Size", "torch.device", "torch.torch_version.TorchVersion",
    "argparse.Namespace", "easydict.EasyDict", "addict.addict.Dict",
})  # fmt: skip
PACKAGES = ("super_gradients.", "omegaconf.", "torch.nn.", "torch.optim.", "torchmetrics.")


class ForeignCodeError(Exception):
    """A file names something that only running code would need; the message is its name."""


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
                raise ValueError("not an archive of torch.save")
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
            self._known[full] = _placeholder(full)
        return self._known[full]

    def persistent_load(self, pid: Any) -> Storage:
        """Return the record of a storage."""
        kind, storage, key, _, numel = pid
        if kind != "storage" or not isinstance(key, str) or not re.fullmatch(r"\w{1,40}", key):
            raise ValueError("an unknown storage type")
        dtype = storage if isinstance(storage, torch.dtype) else None
        return Storage(dtype, key, count_of(numel))


def _placeholder(full: str) -> Any:
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
    return lambda *args: function(*args)
