"""What the loaders hand to the trainer: one dense picture tensor and boxes packed end to end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from eyas.data.batch_arrays import BatchArrays

TENSORS = tuple(name for name in BatchArrays._fields if name != "extras")


@dataclass(frozen=True, eq=False)
class Batch:
    """N pictures of one size with their M boxes.

    Attributes:
        images: uint8 [N, H, W, 3], RGB.
        boxes: float32 [M, 4], xyxy in network pixels, the boxes of picture 0 first, then those of picture 1, ...
        labels: int64 [M], class of each box.
        counts: int64 [N], how many boxes each picture has; they sum to M.
        indices: int64 [N], which picture of the DatasetIndex each one is (of a mosaic: the one it was made for).
        placements: float32 [N, 6], scale_x, scale_y, left, top, width, height of `letterbox.Placement`; zeros for
            augmented pictures.
        sizes: int64 [N, 2], (height, width) of the original picture in pixels.
        skipped: int64 [K], pictures of the DatasetIndex that could not be read while this batch was made.
        extras: columns that are no tensors, captions for example: name -> N values, one an image; see
            `eyas.data.batch_arrays.MakeExtras`. They stay where they are when the tensors go to a device.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor
    indices: Tensor
    placements: Tensor
    sizes: Tensor
    skipped: Tensor
    extras: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, arrays: BatchArrays) -> Batch:
        """Return the batch of tensors that share the memory of the arrays."""
        columns = zip(TENSORS, map(torch.from_numpy, arrays.arrays()), strict=True)
        return cls(**dict[str, Any](columns), extras=arrays.extras)

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.images)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order of the fields."""
        return tuple(getattr(self, name) for name in TENSORS)

    def picture_of_box(self) -> Tensor:
        """Return int64 [M], the row in `images` that each box belongs to."""
        return torch.repeat_interleave(self.counts)

    def truth(self, row: int) -> tuple[Tensor, Tensor]:
        """Return (boxes [m, 4], labels [m]) of the picture in row `row`."""
        start = int(self.counts[:row].sum())
        stop = start + int(self.counts[row])
        return self.boxes[start:stop], self.labels[start:stop]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from where copies to a GPU can overlap with computing."""
        return self._with(tensor.pin_memory() for tensor in self.tensors())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on `device`; `non_blocking` lets a copy from pinned memory overlap with computing."""
        return self._with(tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors())

    def _with(self, tensors: Iterable[Tensor]) -> Batch:
        """Return the batch with these tensors, in the order of the fields; the extras stay."""
        return replace(self, **dict[str, Any](zip(TENSORS, tensors, strict=True)))
