"""A batch before torch: what the loader's workers make, which need numpy and OpenCV alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eyas.data.index import DatasetIndex
from eyas.letterbox import Placement
from eyas.types import FloatArray, InputSpec, IntArray, UInt8Array

Extras = Mapping[str, tuple[Any, ...]]  # columns that are no tensors: name -> a value for each image of a batch
# Gives the extra columns of a batch, from the dataset and, for each image, which of its images are to be seen in it:
# first the one that it was made for, then those of its mosaic and mixup. It goes to other processes: a function of a
# module, or an object that can be pickled; and it must give the same for the same every time, or no run can resume.
MakeExtras = Callable[[DatasetIndex, Sequence[tuple[int, ...]]], Mapping[str, Sequence[Any]]]
Room = Callable[[tuple[int, ...]], UInt8Array]  # gives memory for the images of a batch, of a shape


class BatchArrays(NamedTuple):
    """The fields of `eyas.data.loading.batch.Batch`, which says what they are, as numpy arrays of the same types.

    The last field, `extras`, is no array.
    """

    images: UInt8Array
    boxes: FloatArray
    labels: IntArray
    counts: IntArray
    indices: IntArray
    placements: FloatArray
    sizes: IntArray
    skipped: IntArray
    extras: Extras = {}  # noqa: RUF012  # nobody writes into it

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """Return all fields but the extras, in their order."""
        return self[:-1]


def extras_of(make: MakeExtras | None, index: DatasetIndex, shown: Sequence[tuple[int, ...]]) -> Extras:
    """Return the extra columns of a batch; none if nothing makes any.

    Raises:
        ValueError: a column has another number of values than there are images: a fault of what makes it.
    """
    columns = {} if make is None else {name: tuple(values) for name, values in make(index, shown).items()}
    for name, values in columns.items():
        if len(values) != len(shown):
            raise ValueError(f"The extra column '{name}' has {len(values)} values for {len(shown)} images.")
    return columns


# An epoch, the numbers of the batches to make in it, and whether they are made by the policy of a run's end.
Task = tuple[int, tuple[int, ...], bool]
Maker = Callable[[int, tuple[int, ...], bool, Room], Iterator[BatchArrays]]  # makes the batches of a task


def own_memory(shape: tuple[int, ...]) -> UInt8Array:
    """Return memory of this process, uint8."""
    return np.empty(shape, np.uint8)


def image_shape(count: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return (count, height, width, 3), the shape of a batch's images."""
    return count, spec.height, spec.width, 3


def placement_row(placed: Placement) -> FloatArray:
    """Return a placement as the six numbers of `Batch.placements`."""
    return np.array(
        [placed.scale_x, placed.scale_y, placed.left, placed.top, placed.width, placed.height], dtype=np.float32
    )
