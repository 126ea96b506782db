"""Keeping a data set in memory: its files, or its decoded pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from eyas.data.index import DatasetIndex
from eyas.decode import read_bytes
from eyas.errors import UserError
from eyas.types import UInt8Array

T = TypeVar("T")
CacheKind = Literal["none", "jpeg", "decoded"]


class Decoded(NamedTuple):
    """A decoded picture.

    Attributes:
        image: uint8 [h, w, 3], RGB.
        size: (height, width) of the original.
        factor: how many pixels of the original, across and down, one of `image` stands for.
    """

    image: UInt8Array
    size: tuple[int, int]
    factor: int


class PictureCache:
    """The files or the pixels of a data set in memory, filled once by `fill` before workers are forked, shared by them.

    Args:
        index: the data set.
        kind: "none" reads each file whenever it is wanted; "jpeg" keeps the files' bytes, for storage that is slow or
            far away; "decoded" keeps the pixels (shrunk to what training needs), for small sets: it saves decoding.

    Raises:
        UserError: another kind.
    """

    def __init__(self, index: DatasetIndex, kind: CacheKind = "none") -> None:
        if kind not in ("none", "jpeg", "decoded"):
            raise UserError(f"Unknown cache '{kind}'.", expected="none, jpeg or decoded", where="cache")
        self.index = index
        self.kind = kind
        self._files: dict[int, UInt8Array] = {}
        self._decoded: dict[int, Decoded] = {}
        self.filled = False

    def fill(self, decode: Callable[[int], Decoded]) -> None:
        """Read everything that is to be kept; broken pictures are left out and met again when they are used.

        Args:
            decode: gives the pixels of a picture, or raises UserError.

        Raises:
            UserError: there is not enough memory.
        """
        if self.filled or self.kind == "none":
            return
        self.filled = True
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            # A block at a time, so that memory is checked as it fills.
            for start in range(0, len(self.index), 256):
                block = range(start, min(start + 256, len(self.index)))
                if self.kind == "jpeg":
                    self._files.update(_kept(block, pool.map(self._try_read, block)))
                else:
                    self._decoded.update(_kept(block, pool.map(lambda i: _attempt(decode, i), block)))
                self._check_memory(done=block.stop)

    def read(self, index: int) -> bytes:
        """Return the bytes of a picture's file; a missing file is a UserError."""
        kept = self._files.get(index)
        return kept.tobytes() if kept is not None else read_bytes(self.index.path(index))

    def pixels(self, index: int) -> Decoded | None:
        """Return the decoded picture if it is kept."""
        return self._decoded.get(index)

    def nbytes(self) -> int:
        """Return how much memory is held."""
        files = sum(data.nbytes for data in self._files.values())
        return files + sum(decoded.image.nbytes for decoded in self._decoded.values())

    def _try_read(self, index: int) -> UInt8Array | None:
        """Return the file as an array (numbers in it can't be touched by reference counts), None if it is missing."""
        try:
            return np.frombuffer(read_bytes(self.index.path(index)), np.uint8)
        except UserError:
            return None

    def _check_memory(self, done: int) -> None:
        """Stop before the machine swaps: what is still to come must fit into what is free."""
        held = self.nbytes()
        needed = held / done * (len(self.index) - done)
        free = available_memory()
        if needed > 0.8 * free:
            raise UserError(
                f"The data set does not fit into memory: about {(held + needed) / 2**30:.1f} GiB would be kept, "
                f"{(held + free) / 2**30:.1f} GiB are free.",
                where=f"cache={self.kind}",
                fix="use cache=jpeg or cache=none" if self.kind == "decoded" else "use cache=none",
            )


def _attempt(decode: Callable[[int], Decoded], index: int) -> Decoded | None:
    """Return the decoded picture, None if it is broken."""
    try:
        return decode(index)
    except UserError:
        return None


def _kept(block: range, values: Iterable[T | None]) -> dict[int, T]:
    """Return {index: value} of the values that are there."""
    return {index: value for index, value in zip(block, values, strict=True) if value is not None}


def available_memory() -> int:
    """Return the bytes of memory that can be had without swapping, as the system says."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30  # nothing known (Windows): be careful
