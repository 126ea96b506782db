"""What is known of the images in the store, without their pixels: sizes, places, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eyas.data.augment.truth import BatchTruth
from eyas.data.device.layout import MemoryLayout
from eyas.data.index import DatasetIndex
from eyas.data.loading.source import trained_truth
from eyas.data.paths import offsets_of
from eyas.errors import UserError
from eyas.types import FloatArray, IntArray


class Stored(NamedTuple):
    """An image in the store.

    Attributes:
        number: its index in the dataset.
        height, width: of its decoded pixels.
        size: (height, width) of the image file.
    """

    number: int
    height: int
    width: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Catalog:
    """The N images of a dataset in the store.

    Attributes:
        index: the dataset.
        sizes: int64 [N, 2], (height, width) of the image files; zeros for those that can't be read.
        shapes: int64 [N, 2], (height, width) of the decoded pixels.
        starts: int64 [N, COLUMNS], the pixel of the store at which each part begins, -1 where there is none.
        offsets: int64 [N + 1], image i's boxes are the rows offsets[i]:offsets[i + 1].
        boxes: float32 [M, 4], the boxes that are trained on, xyxy in decoded pixels.
        labels: int64 [M].
    """

    index: DatasetIndex
    sizes: IntArray
    shapes: IntArray
    starts: IntArray
    offsets: IntArray
    boxes: FloatArray
    labels: IntArray

    @classmethod
    def build(cls, index: DatasetIndex, layout: MemoryLayout, sizes: IntArray, firsts: IntArray) -> Catalog:
        """Return the catalog of images that are packed as `layout` says.

        Args:
            index: the dataset.
            layout: what is kept of each.
            sizes: int64 [N, 2], (height, width) of the files, zeros for those that can't be read.
            firsts: int64 [N], the pixel of the store at which each image begins.
        """
        known = {(height, width): layout.starts(height, width) for height, width in _shapes(layout, sizes)}
        shapes = np.array(_shapes(layout, sizes), np.int64).reshape(-1, 2)
        starts = np.stack([known[height, width] for height, width in shapes.tolist()])
        starts[starts >= 0] += np.broadcast_to(firsts[:, None], starts.shape)[starts >= 0]
        factors = np.array([layout.factor(*size) for size in sizes.tolist()], np.int64)
        owners = index.image_of_row()
        boxes, rows = trained_truth(index.boxes, index.crowd, sizes[owners], factors[owners])
        counts = np.bincount(owners[rows], minlength=len(index))
        return cls(index, sizes, shapes, starts, offsets_of(counts), boxes, index.labels[rows])

    def get(self, number: int) -> Stored:
        """Return image `number`; one that could not be read is a UserError."""
        height, width = self.shapes[number].tolist()
        if not height:
            raise UserError("The image can't be read.", where=str(self.path(number)))
        full = self.sizes[number].tolist()
        return Stored(number, height, width, (full[0], full[1]))

    def path(self, number: int) -> Path:
        """Return the path of image `number`."""
        return self.index.path(number)

    def truth(self, images: Sequence[Stored]) -> BatchTruth:
        """Return the boxes of images, packed end to end."""
        numbers = np.array([one.number for one in images], np.int64)
        firsts = self.offsets[numbers]
        counts = self.offsets[numbers + 1] - firsts
        rows = np.arange(int(counts.sum())) + np.repeat(firsts - offsets_of(counts)[:-1], counts)
        return BatchTruth(self.boxes[rows], self.labels[rows], counts)


def _shapes(layout: MemoryLayout, sizes: IntArray) -> list[tuple[int, int]]:
    return [layout.decoded(height, width) if height else (0, 0) for height, width in sizes.tolist()]
