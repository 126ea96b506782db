"""Makes evaluation batches: images letterboxed exactly as in deployment, in the order of the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from eyas import letterbox
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch_arrays import (
    BatchArrays,
    MakeExtras,
    Room,
    extras_of,
    image_shape,
    own_memory,
    placement_row,
)
from eyas.decode import read_image
from eyas.errors import UserError
from eyas.types import InputSpec, UInt8Array


class EvaluationBatches:
    """The batches of a dataset in order, cut among ranks: rank r has batches r, r + world_size, ...

    Args:
        index: the images.
        spec: the network's input.
        batch_size: images in a batch; the last one may have fewer.
        rank, world_size: this process among those that evaluate together.
        make_extras: gives the batches' extra columns; they have none if None.

    Raises:
        UserError: no images, or a batch size below 1.
    """

    def __init__(
        self,
        index: DatasetIndex,
        spec: InputSpec,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        make_extras: MakeExtras | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"The batch size is {batch_size}.", expected="at least 1", where="batch_size")
        if not len(index):
            raise UserError("There are no images to evaluate.", where=str(index.root))
        self.index = index
        self.spec = spec
        self.batch_size = batch_size
        self.make_extras = make_extras
        self.starts = range(rank * batch_size, len(index), batch_size * world_size)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return len(self.starts)

    def batches(
        self, _: int, numbers: Iterable[int], __: bool = False, room: Room = own_memory
    ) -> Iterator[BatchArrays]:
        """Yield this rank's batches with these numbers, their images in memory of `room`: the same in every epoch."""
        for number in numbers:
            start = self.starts[number]
            yield self._batch(range(start, min(start + self.batch_size, len(self.index))), room)

    def batch_bytes(self) -> int:
        """Return how much memory the images of a batch take."""
        return self.batch_size * self.spec.height * self.spec.width * 3

    def _batch(self, indices: range, room: Room) -> BatchArrays:
        """Make one batch."""
        images = room(image_shape(len(indices), self.spec))
        placements = np.zeros((len(indices), 6), np.float32)
        boxes, labels, sizes, skipped = [], [], [], []
        for row, index in enumerate(indices):
            try:
                image = read_image(self.index.path(index))
            except UserError:
                image = self._blank(index)
                skipped.append(index)
            placed = letterbox.letterbox(image, self.spec, out=images[row])[1]
            truth, classes, crowd = self.index.truth(index)
            placements[row] = placement_row(placed)
            boxes.append(letterbox.to_frame(truth[~crowd], placed))
            labels.append(classes[~crowd])
            sizes.append(image.shape[:2])
        return BatchArrays(
            images=images,
            boxes=np.concatenate(boxes),
            labels=np.concatenate(labels),
            counts=np.array([len(one) for one in boxes], np.int64),
            indices=np.array(indices, np.int64),
            placements=placements,
            sizes=np.array(sizes, np.int64),
            skipped=np.array(skipped, np.int64),
            extras=extras_of(self.make_extras, self.index, [(index,) for index in indices]),
        )

    def _blank(self, index: int) -> UInt8Array:
        height, width = (int(side) for side in self.index.sizes[index])
        if height < 1 or width < 1 or height * width > 1 << 26:
            height, width = self.spec.height, self.spec.width
        return np.full((height, width, 3), self.spec.pad_value, np.uint8)
