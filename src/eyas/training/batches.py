"""From a batch of bytes to what the network and the post-processing take."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eyas.letterbox import Placement


def to_float_images(images: Tensor, scale: float) -> Tensor:
    """Return uint8 [N, H, W, 3] as float [N, 3, H, W] times `scale`; its memory stays channels-last."""
    return images.permute(0, 3, 1, 2).float() * scale


def placement_of(row: Sequence[float]) -> Placement:
    """Return the placement that a row of `Batch.placements` holds."""
    scale_x, scale_y, left, top, width, height = row
    return Placement(scale_x, scale_y, int(left), int(top), int(width), int(height))
