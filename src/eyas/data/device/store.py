"""The pixels of a dataset in a device's memory: one block, filled once by worker processes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eyas.data.device.catalog import Catalog
from eyas.data.device.filling import CHUNK, Filling
from eyas.data.device.layout import MemoryLayout
from eyas.data.device.memory import DeviceRoom
from eyas.data.index import DatasetIndex
from eyas.data.loading.workers import Pipe
from eyas.decode import read_size
from eyas.errors import UserError
from eyas.machine.cores import usable_cores
from eyas.progress import track
from eyas.read_ahead import ahead
from eyas.types import IntArray


def file_sizes(index: DatasetIndex) -> IntArray:
    """Return the (height, width) of the image files, int64 [N, 2]: the index's, else the header's, else zeros."""
    sizes = index.sizes.astype(np.int64)
    unknown = np.flatnonzero((sizes <= 0).any(axis=1)).tolist()
    read = ahead(lambda i: _size(index, i), unknown, usable_cores())
    for number, size in zip(unknown, track(read, len(unknown), "reading image sizes"), strict=True):
        sizes[number] = size
    return sizes


def _size(index: DatasetIndex, number: int) -> tuple[int, int]:
    try:
        return read_size(index.path(number))
    except UserError:
        return 0, 0


def margin(layout: MemoryLayout, sizes: IntArray) -> int:
    """Return how many pixels lie before and after those of the images, so that no neighbour is out of the block.

    An image's pixel has neighbours a row and a column away, and a warp looks one further.
    """
    different = np.unique(sizes, axis=0).tolist()
    widths = [part.width for size in different if min(size) > 0 for part in layout.parts(*layout.decoded(*size))]
    return 2 * max(widths, default=1) + 4


def store_bytes(layout: MemoryLayout, sizes: IntArray) -> int:
    """Return how much memory a dataset takes, with files of the given sizes, int64 [N, 2]."""
    return layout.nbytes(sizes) + 2 * 3 * margin(layout, sizes)


def fill(filling: Filling, place: DeviceRoom, workers: int, patience: float) -> tuple[Tensor, Catalog]:
    """Decode all images into the memory of a device.

    Args:
        filling: decodes them.
        place: where to, and the sizes for which memory is taken.
        workers: processes that decode.
        patience: seconds after which one that gives nothing ends this.

    Returns:
        uint8 [P, 3], the pixels, and what lies where. Images that can't be read have no size there.

    Raises:
        UserError: there is not enough memory after all; an image has another size than was known.
    """
    index, layout = filling.images.index, filling.layout
    device, sizes = place.device, place.sizes
    edge = margin(layout, sizes)
    total = layout.nbytes(sizes) // 3 + 2 * edge
    try:
        pixels = torch.zeros((total, 3), dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        raise UserError(f"{device} does not have {3 * total / 2**30:.1f} GiB of free memory.", where="data.cache",
                        fix="--data.cache jpeg") from None  # fmt: skip
    found, firsts, end = np.zeros((len(index), 2), np.int64), np.zeros(len(index), np.int64), edge
    tasks = filling.tasks()
    pipe = Pipe(filling.batches, workers, None, _chunk_bytes(layout, sizes), patience)
    try:
        for batch in track(pipe.run(tasks), len(tasks), f"decoding images into the memory of {device}"):
            numbers, own = batch.indices.numpy(), batch.sizes.numpy()
            count = 0
            for number, size in zip(numbers.tolist(), own.tolist(), strict=True):
                if not min(size):
                    continue
                if size != sizes[number].tolist():
                    raise _changed(index, number, sizes[number].tolist(), size)
                found[number], firsts[number] = size, end + count
                count += layout.pixels(*layout.decoded(*size))
            pixels[end : end + count].view(-1).copy_(batch.images.view(-1)[: 3 * count])
            end += count
    finally:
        pipe.close()
    return pixels, Catalog.build(index, layout, found, firsts)


def _chunk_bytes(layout: MemoryLayout, sizes: IntArray) -> int:
    different = np.unique(sizes, axis=0).tolist()
    return 3 * CHUNK * max((layout.pixels(*layout.decoded(*size)) for size in different if min(size) > 0), default=1)


def _changed(index: DatasetIndex, number: int, known: list[int], size: list[int]) -> UserError:
    return UserError(
        f"The image has {size[1]} x {size[0]} pixels, but had {known[1]} x {known[0]} when the dataset was read.",
        where=str(index.path(number)),
        fix="leave the files unchanged while a run starts, and start it again; 'eyas data check' compares sizes",
    )
