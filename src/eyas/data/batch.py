"""What the loaders hand to the trainer: one dense picture tensor and boxes packed end to end."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from eyas.types import InputSpec


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
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor
    indices: Tensor
    placements: Tensor
    sizes: Tensor
    skipped: Tensor

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.images)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

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
        return Batch(*(tensor.pin_memory() for tensor in self.tensors()))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on `device`; `non_blocking` lets a copy from pinned memory overlap with computing."""
        return Batch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors()))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Pickle the pictures as a tensor, which goes through shared memory, and the rest by value.

        A loader's worker would else open a file descriptor for every tensor of every batch on its way.
        """
        return _from_arrays, (self.images, *(tensor.cpu().numpy() for tensor in self.tensors()[1:]))


def _from_arrays(images: Tensor, *arrays: Any) -> Batch:
    """Return the batch that `Batch.__reduce__` took apart."""
    return Batch(images, *(torch.from_numpy(array) for array in arrays))


def new_images(count: int, spec: InputSpec) -> Tensor:
    """Return room for the pictures of a batch, uint8 [count, H, W, 3]; in a loader's worker it is shared memory.

    Elsewhere the batch would be copied into shared memory on its way to the trainer.
    """
    shape = (count, spec.height, spec.width, 3)
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, np.uint8))  # numpy asks for huge pages, torch does not
    # The call that torch's own collate function makes.
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
