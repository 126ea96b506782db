"""Geometry of axis-aligned boxes on torch tensors, differentiable; the training side of `eyas.boxes`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-9


def intersection_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of intersection and union of xyxy boxes [..., 4] that broadcast: two tensors [...].

    Inverted boxes count as empty.
    """
    x0 = torch.maximum(first[..., 0], second[..., 0])
    y0 = torch.maximum(first[..., 1], second[..., 1])
    x1 = torch.minimum(first[..., 2], second[..., 2])
    y1 = torch.minimum(first[..., 3], second[..., 3])
    intersection = (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)
    return intersection, area(first) + area(second) - intersection


def area(boxes: Tensor) -> Tensor:
    """Return the area of xyxy boxes [..., 4], 0 for an inverted one: [...]."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of xyxy boxes [..., 4] that broadcast: [...], 0 for empty boxes."""
    intersection, union = intersection_and_union(first, second)
    return intersection / (union + EPSILON)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalized IoU of xyxy boxes [..., 4] that broadcast: [...], in -1..1.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019 (arXiv 1902.09630).
    """
    intersection, union = intersection_and_union(first, second)
    width = torch.maximum(first[..., 2], second[..., 2]) - torch.minimum(first[..., 0], second[..., 0])
    height = torch.maximum(first[..., 3], second[..., 3]) - torch.minimum(first[..., 1], second[..., 1])
    hull = width * height
    return intersection / (union + EPSILON) - (hull - union) / (hull + EPSILON)


def boxes_from_bins(bin_logits: Tensor, anchor_points: Tensor) -> Tensor:
    """Return the boxes that distributions over distances mean: xyxy, in the unit of the bins and the points.

    The distance of a side is the expectation of the bins 0, 1, ..., reg_max under their softmax
    (Li et al., "Generalized Focal Loss", arXiv 2006.04388).

    Args:
        bin_logits: float [B, A, 4, reg_max + 1], for the sides left, top, right, bottom.
        anchor_points: float [A, 2], (x, y).

    Returns:
        float [B, A, 4].
    """
    bins = torch.arange(bin_logits.shape[-1], device=bin_logits.device, dtype=bin_logits.dtype)
    return _around(anchor_points, bin_logits.softmax(dim=-1) @ bins)


def boxes_from_distances(side_logits: Tensor, anchor_points: Tensor) -> Tensor:
    """Return the boxes that one value a side means: xyxy, in the unit of the distances and the points.

    A distance is the softplus of its value: nearly the value itself where that is large, and never below 0, so that
    each box holds its point and no box is inverted.

    Args:
        side_logits: float [..., 4], for the sides left, top, right, bottom.
        anchor_points: float [..., 2], (x, y), which broadcast with them.

    Returns:
        float [..., 4].
    """
    return _around(anchor_points, F.softplus(side_logits))


def _around(points: Tensor, distances: Tensor) -> Tensor:
    """Return the boxes [..., 4] whose sides are so far [..., 4] from the points [..., 2]."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)
