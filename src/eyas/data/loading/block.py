"""A batch as one block of bytes: what lies where in it, so that it is shared, page-locked and copied as a whole.

Images come first, since their number is known before anything else of a batch; workers draw them straight into the
block. Without torch, which the loader's workers do not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from eyas.data.loading.batch_arrays import BatchArrays, Extras
from eyas.data.loading.shared import ALIGNMENT
from eyas.types import UInt8Array

# Of the columns, in the order of `BatchArrays`.
DTYPES = tuple(np.dtype(name) for name in ("u1", "f4", "i8", "i8", "i8", "f4", "i8", "i8"))
_SPARE = 8192  # bytes an image that are kept for the other columns: boxes of a crowd of 300 and more


@dataclass(frozen=True)
class BlockLayout:
    """Where the columns of a batch lie in its block; blocks of equal layouts can be copied over one another.

    Attributes:
        shapes: of the columns, in the order of `BatchArrays`. Those of boxes and labels count the padding.
    """

    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, arrays: BatchArrays, multiple: int = 1) -> BlockLayout:
        """Return the layout of a batch, with room for a multiple of `multiple` boxes (none where there is none)."""
        rows = -(-len(arrays.boxes) // multiple) * multiple
        images, _, _, *rest = (array.shape for array in arrays.arrays())
        return cls((images, (rows, 4), (rows,), *rest))

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """First byte and end of each column; each begins at a multiple of 64."""
        return _places(self.shapes)

    @property
    def nbytes(self) -> int:
        """Bytes of the block."""
        return self.places[-1][1]


@lru_cache(64)
def _places(shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, int], ...]:
    places, start = [], 0
    for dtype, shape in zip(DTYPES, shapes, strict=True):
        end = start + dtype.itemsize * math.prod(shape)
        places.append((start, end))
        start = -(-end // ALIGNMENT) * ALIGNMENT
    return tuple(places)


class Block(NamedTuple):
    """A batch in one piece of this process's memory.

    Attributes:
        memory: uint8 [layout.nbytes].
        layout: what lies where.
        boxes: how many of the rows of boxes and labels are some; the others are zeros.
        extras: the columns that are no arrays, which lie elsewhere.
    """

    memory: UInt8Array
    layout: BlockLayout
    boxes: int
    extras: Extras = {}  # noqa: RUF012  # nobody writes into it

    def arrays(self) -> BatchArrays:
        """Return the columns, which share the memory, without padding."""
        images, boxes, labels, counts, indices, placements, sizes, skipped = (
            self.memory[start:end].view(dtype).reshape(shape)
            for (start, end), dtype, shape in zip(self.layout.places, DTYPES, self.layout.shapes, strict=True)
        )
        boxes, labels = boxes[: self.boxes], labels[: self.boxes]
        return BatchArrays(images, boxes, labels, counts, indices, placements, sizes, skipped, self.extras)


def rest_of(arrays: BatchArrays, layout: BlockLayout) -> Iterator[tuple[int, UInt8Array]]:
    """Yield where each column but the images begins in a block of zeros, and its bytes."""
    for array, (start, _) in zip(arrays.arrays()[1:], layout.places[1:], strict=True):
        yield start, np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class OwnRoom:
    """Memory of this process for a batch that is being made: `Room` for its images, then the block of all.

    Args:
        multiple: of how many boxes the blocks have room for a multiple.
    """

    def __init__(self, multiple: int = 1) -> None:
        self._multiple = multiple
        self._memory: UInt8Array = np.empty(0, np.uint8)

    def __call__(self, shape: tuple[int, ...]) -> UInt8Array:
        """Return memory for images, uint8; what is not written to takes none."""
        size = math.prod(shape)
        self._memory = np.empty(size + _SPARE * (shape[0] + 1), np.uint8)
        return self._memory[:size].reshape(shape)

    def block(self, arrays: BatchArrays) -> Block:
        """Return the batch whose images were drawn into the memory last asked for, with all else behind them."""
        layout = BlockLayout.of(arrays, self._multiple)
        memory = self._memory
        if layout.nbytes > len(memory):
            memory = np.empty(layout.nbytes, np.uint8)
            memory[: arrays.images.nbytes] = arrays.images.reshape(-1)
        self._memory = np.empty(0, np.uint8)
        memory[arrays.images.nbytes : layout.nbytes] = 0
        for start, data in rest_of(arrays, layout):
            memory[start : start + len(data)] = data
        return Block(memory[: layout.nbytes], layout, len(arrays.labels), arrays.extras)
