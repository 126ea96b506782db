"""Keeping a dataset in memory that the loader's workers share: its files, or its decoded images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from eyas.data.index import DatasetIndex
from eyas.data.loading.shared import SharedBlock
from eyas.decode import read_bytes
from eyas.errors import UserError
from eyas.machine.cores import usable_cores
from eyas.machine.memory import available_memory
from eyas.read_ahead import ahead
from eyas.types import UInt8Array

HostCache = Literal["none", "jpeg", "decoded"]
CacheKind = Literal["none", "jpeg", "decoded", "gpu", "auto"]  # all that can be asked for
Row = tuple[memoryview, tuple[int, ...]]  # what is kept of an image, and its numbers in the table
_NO_SIZES = (0, 0, 0, 0, 0)


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: uint8 [h, w, 3], RGB.
        size: (height, width) of the original.
        factor: how many pixels of the original, across and down, one of `image` stands for.
    """

    image: UInt8Array
    size: tuple[int, int]
    factor: int


class ImageCache:
    """The files or the pixels of a dataset in shared memory, filled once by `fill` before workers are started.

    Args:
        index: the dataset.
        kind: "none" reads each file whenever it is wanted; "jpeg" keeps the files' bytes, for storage that is slow or
            far away; "decoded" keeps the pixels (shrunk to what training needs), for small sets: it saves decoding.

    Raises:
        UserError: another kind.
    """

    def __init__(self, index: DatasetIndex, kind: HostCache = "none") -> None:
        if kind not in ("none", "jpeg", "decoded"):
            raise UserError(f"Unknown cache '{kind}'.", expected="none, jpeg, decoded, gpu or auto", where="cache")
        self.index = index
        self.kind = kind
        self.filled = False
        self._block: SharedBlock | None = None
        # For each image: where it begins (-1: it is not kept) and its length; of a decoded one also the (height,
        # width) of its pixels and of the original, and the factor between them.
        self._table = np.zeros((0, 7), np.int64)
        self._memory: UInt8Array | None = None  # this process's map of the block

    def fill(self, decode: Callable[[int], Decoded]) -> None:
        """Read everything that is to be kept; broken images are left out and met again when they are used.

        Args:
            decode: gives the pixels of an image, or raises UserError.

        Raises:
            UserError: there is not enough memory.
        """
        if self.filled or self.kind == "none":
            return
        block = SharedBlock()
        self._table = np.full((len(self.index), 7), -1, np.int64)
        read = self._row_of_file if self.kind == "jpeg" else lambda i: _row_of_pixels(decode, i)
        for index, found in enumerate(ahead(read, range(len(self.index)), usable_cores())):
            if found is not None:
                data, numbers = found
                self._table[index] = (block.append(data), data.nbytes, *numbers)
            if index % 256 == 255 or index + 1 == len(self.index):  # as it fills
                self._check_memory(block.nbytes, index + 1)
        self._block, self.filled = block, True

    def read(self, index: int) -> bytes:
        """Return the bytes of an image's file; a missing file is a UserError."""
        kept = self._kept(index) if self.kind == "jpeg" else None
        return kept.tobytes() if kept is not None else read_bytes(self.index.path(index))

    def pixels(self, index: int) -> Decoded | None:
        """Return the decoded image if it is kept; its pixels can't be written to, others share them."""
        kept = self._kept(index) if self.kind == "decoded" else None
        if kept is None:
            return None
        high, wide, height, width, factor = (int(number) for number in self._table[index, 2:])
        return Decoded(kept.reshape(high, wide, 3), (height, width), factor)

    def nbytes(self) -> int:
        """Return how much memory is held."""
        return self._block.nbytes if self._block is not None else 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the map, which every process makes for itself."""
        return {**self.__dict__, "_memory": None}

    def _kept(self, index: int) -> UInt8Array | None:
        """Return what is kept of an image, None if nothing is."""
        if self._block is None or self._table[index, 0] < 0:
            return None
        if self._memory is None:
            self._memory = self._block.read_only()
        start, length = self._table[index, :2]
        return self._memory[start : start + length]

    def _row_of_file(self, index: int) -> Row | None:
        try:
            return memoryview(read_bytes(self.index.path(index))), _NO_SIZES
        except UserError:
            return None

    def _check_memory(self, held: int, done: int) -> None:
        """Stop before the machine swaps: what is still to come must fit into what is free."""
        needed = held / done * (len(self.index) - done)
        free = available_memory()
        if needed > 0.8 * free:
            raise UserError(
                f"The dataset does not fit into memory: it needs about {(held + needed) / 2**30:.1f} GiB, of which "
                f"{(held + free) / 2**30:.1f} GiB are available.",
                where=f"cache={self.kind}",
                fix="use cache=jpeg or cache=none" if self.kind == "decoded" else "use cache=none",
            )


def _row_of_pixels(decode: Callable[[int], Decoded], index: int) -> Row | None:
    try:
        image, size, factor = decode(index)
    except UserError:
        return None
    return np.ascontiguousarray(image).data, (*image.shape[:2], *size, factor)
