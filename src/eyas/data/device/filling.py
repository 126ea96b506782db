"""Decodes the images that go into the store: what a worker does while it is filled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from eyas.data.device.layout import MemoryLayout
from eyas.data.loading.batch_arrays import BatchArrays, Room, Task, own_memory
from eyas.data.loading.source import Images, Source
from eyas.errors import UserError
from eyas.types import UInt8Array

CHUNK = 8  # images decoded for one answer


class Filling:
    """Decodes images and packs them as the store has them.

    Args:
        images: reads them.
        layout: what is kept of each.
    """

    def __init__(self, images: Images, layout: MemoryLayout) -> None:
        self.images = images
        self.layout = layout

    def tasks(self) -> list[Task]:
        """Return the tasks that together are the whole dataset, in its order."""
        return [(0, (number,), False) for number in range(-(-len(self.images.index) // CHUNK))]

    def batches(
        self, _: int, numbers: Iterable[int], __: bool = False, room: Room = own_memory
    ) -> Iterator[BatchArrays]:
        """Yield a batch for each chunk: `images` is uint8 [1, pixels * 3], one image after another.

        `sizes` are those of the files, `skipped` are the images that can't be read, of which there are no pixels and
        no size.
        """
        for number in numbers:
            yield self._chunk(range(number * CHUNK, min((number + 1) * CHUNK, len(self.images.index))), room)

    def _chunk(self, indices: range, room: Room) -> BatchArrays:
        """Decode some images."""
        packed: list[UInt8Array] = []
        sizes = np.zeros((len(indices), 2), np.int64)
        broken = []
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        for row, index in enumerate(indices):
            try:
                image, sizes[row], _ = self.images.decode(index)
            except UserError:
                broken.append(index)
                continue
            assert image.shape[:2] == self.layout.decoded(*sizes[row].tolist()), "an image was not decoded as planned"
            packed.append(self.layout.pack(Source(image, *nothing, (0, 0))))
        pixels = np.concatenate(packed) if packed else np.zeros((0, 3), np.uint8)
        images = room((1, max(1, pixels.size)))
        images[0, : pixels.size] = pixels.reshape(-1)
        return BatchArrays(
            images=images,
            boxes=nothing[0],
            labels=nothing[1],
            counts=np.zeros(len(indices), np.int64),
            indices=np.array(indices, np.int64),
            placements=np.zeros((len(indices), 6), np.float32),
            sizes=sizes,
            skipped=np.array(broken, np.int64),
        )
