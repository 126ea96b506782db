"""From a batch of bytes to what the network and the post-processing take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from eyas.data.batch import Batch
from eyas.letterbox import Placement
from eyas.losses.detection import detection_loss
from eyas.losses.settings import LossSettings
from eyas.models.output import HeadOutput


def to_float_images(images: Tensor, scale: float) -> Tensor:
    """Return uint8 [N, H, W, 3] as float [N, 3, H, W] times `scale`; its memory stays channels-last."""
    return images.permute(0, 3, 1, 2).float() * scale


def placement_of(row: Sequence[float]) -> Placement:
    """Return the placement that a row of `Batch.placements` holds."""
    scale_x, scale_y, left, top, width, height = row
    return Placement(scale_x, scale_y, int(left), int(top), int(width), int(height))


def batch_loss(
    output: HeadOutput,
    batch: Batch,
    settings: LossSettings,
    reduce_normaliser: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the weighted loss terms of what the network said of a batch; see `detection_loss`."""
    return detection_loss(
        output.class_logits,
        output.box_logits,
        output.anchor_points,
        output.strides,
        batch.boxes,
        batch.labels,
        batch.counts,
        settings,
        reduce_normaliser,
    )
