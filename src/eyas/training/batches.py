"""From a batch of bytes to what the network and the post-processing take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eyas.letterbox import Placement
from eyas.losses.criterion import Criterion, TruthBatch


def to_float_images(images: Tensor, scale: float) -> Tensor:
    """Return uint8 [N, H, W, 3] as float [N, 3, H, W] times `scale`; its memory stays channels-last."""
    return images.permute(0, 3, 1, 2).float() * scale


def loss_terms(net: nn.Module, criterion: Criterion, images: Tensor, truth: TruthBatch, scale: float) -> Tensor:
    """Return the weighted terms of the loss, float [T] in the order of the criterion's `terms`.

    Args:
        net: returns what the criterion takes.
        criterion: the loss.
        images: uint8 [N, H, W, 3].
        truth: of these images.
        scale: what pixels are multiplied by.
    """
    terms = criterion.terms_of(net, to_float_images(images, scale), truth)
    return torch.stack([terms[name] for name in criterion.terms])


def placement_of(row: Sequence[float]) -> Placement:
    """Return the placement that a row of `Batch.placements` holds."""
    scale_x, scale_y, left, top, width, height = row
    return Placement(scale_x, scale_y, int(left), int(top), int(width), int(height))
