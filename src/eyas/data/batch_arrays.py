"""A batch before torch: what the loader's workers make, which need numpy and OpenCV alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from eyas.letterbox import Placement
from eyas.types import FloatArray, InputSpec, IntArray, UInt8Array

Room = Callable[[tuple[int, ...]], UInt8Array]  # gives memory for the images of a batch, of a shape


class BatchArrays(NamedTuple):
    """The fields of `eyas.data.batch.Batch`, which says what they are, as numpy arrays of the same types and shapes."""

    images: UInt8Array
    boxes: FloatArray
    labels: IntArray
    counts: IntArray
    indices: IntArray
    placements: FloatArray
    sizes: IntArray
    skipped: IntArray


# An epoch, the numbers of the batches to make in it, and whether they are made by the policy of a run's end.
Task = tuple[int, tuple[int, ...], bool]
Maker = Callable[[int, tuple[int, ...], bool, Room], Iterator[BatchArrays]]  # makes the batches of a task


def own_memory(shape: tuple[int, ...]) -> UInt8Array:
    """Return memory of this process, uint8."""
    return np.empty(shape, np.uint8)


def picture_shape(count: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return (count, height, width, 3), the shape of a batch's pictures."""
    return count, spec.height, spec.width, 3


def placement_row(placed: Placement) -> FloatArray:
    """Return a placement as the six numbers of `Batch.placements`."""
    return np.array(
        [placed.scale_x, placed.scale_y, placed.left, placed.top, placed.width, placed.height], dtype=np.float32
    )
