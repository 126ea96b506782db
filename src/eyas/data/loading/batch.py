"""What the loaders hand to the trainer: one dense image tensor and boxes packed end to end, all in one block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eyas.data.loading.batch_arrays import BatchArrays, Extras
from eyas.data.loading.block import DTYPES, Block, BlockLayout

TENSORS = tuple(name for name in BatchArrays._fields if name != "extras")
_DTYPES = tuple(torch.from_numpy(np.empty(0, dtype)).dtype for dtype in DTYPES)


class TensorBlock(NamedTuple):
    """The one piece of memory that all columns of a batch are views of.

    Attributes:
        memory: uint8 [layout.nbytes], on any device.
        layout: what lies where.
        boxes: how many of the rows of boxes and labels are some; the others are zeros.
        extras: the columns that are no tensors, which lie elsewhere.
    """

    memory: Tensor
    layout: BlockLayout
    boxes: int
    extras: Extras = {}  # noqa: RUF012  # nobody writes into it

    @classmethod
    def of(cls, block: Block) -> TensorBlock:
        """Return the block as a tensor that shares its memory."""
        return cls(torch.from_numpy(block.memory), block.layout, block.boxes, block.extras)

    def columns(self) -> tuple[Tensor, ...]:
        """Return the columns in the order of `BatchArrays`, boxes and labels with their padding."""
        return tuple(
            self.memory[start:end].view(dtype).view(shape)
            for (start, end), dtype, shape in zip(self.layout.places, _DTYPES, self.layout.shapes, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """N images of one size with their M boxes.

    Attributes:
        images: uint8 [N, H, W, 3], RGB.
        boxes: float32 [M, 4], xyxy in network pixels, the boxes of image 0 first, then those of image 1, ...
        labels: int64 [M], class of each box.
        counts: int64 [N], how many boxes each image has; they sum to M.
        indices: int64 [N], which image of the DatasetIndex each one is (of a mosaic: the one it was made for).
        placements: float32 [N, 6], scale_x, scale_y, left, top, width, height of `letterbox.Placement`; zeros for
            augmented images.
        sizes: int64 [N, 2], (height, width) of the original image in pixels.
        skipped: int64 [K], images of the DatasetIndex that could not be read while this batch was made.
        block: the memory that all of these are views of; None for a batch of tensors that lie apart. A loader's batch
            has one, so that it is copied in one go; with `box_multiple` its boxes are padded with zeros there.
        host: the batch that this one was copied to a device from; None for one that was not.
        extras: columns that are no tensors, captions for example: name -> N values, one an image; see
            `eyas.data.loading.batch_arrays.MakeExtras`. They stay where they are when the tensors go to a device.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor
    indices: Tensor
    placements: Tensor
    sizes: Tensor
    skipped: Tensor
    block: TensorBlock | None = None
    host: Batch | None = None
    extras: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        columns: Iterable[Tensor],
        block: TensorBlock | None = None,
        host: Batch | None = None,
        extras: Mapping[str, Sequence[Any]] | None = None,
    ) -> Batch:
        """Return the batch of these tensors, which come in the order of the fields."""
        images, boxes, labels, counts, indices, placements, sizes, skipped = columns
        return cls(images, boxes, labels, counts, indices, placements, sizes, skipped, block, host, extras or {})

    @classmethod
    def of_block(cls, block: TensorBlock, host: Batch | None = None) -> Batch:
        """Return the batch of views of a block, without padding."""
        images, boxes, labels, *rest = block.columns()
        return cls.of([images, boxes[: block.boxes], labels[: block.boxes], *rest], block, host, block.extras)

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.images)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order of the fields."""
        return tuple(getattr(self, name) for name in TENSORS)

    def image_of_box(self) -> Tensor:
        """Return int64 [M], the row in `images` that each box belongs to."""
        return torch.repeat_interleave(self.counts)

    def truth(self, row: int) -> tuple[Tensor, Tensor]:
        """Return (boxes [m, 4], labels [m]) of the image in row `row`."""
        start = int(self.counts[:row].sum())
        stop = start + int(self.counts[row])
        return self.boxes[start:stop], self.labels[start:stop]

    def on_host(self) -> Batch:
        """Return the batch that this one was copied from, or itself: to read from it waits for no device."""
        return self if self.host is None else self.host

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from where copies to a GPU can overlap with computing.

        torch keeps such memory when it is done with, and hands it out again when the copies out of it have ended.
        """
        if self.block is None:
            return Batch.of((tensor.pin_memory() for tensor in self.tensors()), extras=self.extras)
        return Batch.of_block(self.block._replace(memory=self.block.memory.pin_memory()))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on `device`; `non_blocking` lets a copy from pinned memory overlap with computing."""
        if self.block is None:
            moved = (tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors())
            return Batch.of(moved, host=self._host_for(device), extras=self.extras)
        memory = self.block.memory.to(device, non_blocking=non_blocking)
        if memory is self.block.memory:
            return self
        return Batch.of_block(self.block._replace(memory=memory), self._host_for(device))

    def _host_for(self, device: torch.device | str) -> Batch | None:
        return None if torch.device(device).type == "cpu" else self.on_host()
