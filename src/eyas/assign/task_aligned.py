"""Task-aligned assignment: an object is learnt where classification and localisation already agree best.

Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021 (arXiv 2108.07755).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eyas.assign.settings import TaskAlignedSettings
from eyas.tensor_boxes import iou


class Assignment(NamedTuple):
    """What each anchor point has to learn.

    Attributes:
        positive: bool [B, A], whether the anchor point has an object.
        object_index: int64 [B, A], the row of that object in the packed truth (0 where not positive).
        quality: float32 [B, A], the target score in 0..1: the alignment, scaled so that an object's best anchor point
            has the object's best IoU; 0 where not positive.
    """

    positive: Tensor
    object_index: Tensor
    quality: Tensor


@torch.no_grad()
def task_aligned(
    scores: Tensor,
    boxes: Tensor,
    anchor_centres: Tensor,
    truth_boxes: Tensor,
    truth_labels: Tensor,
    counts: Tensor,
    settings: TaskAlignedSettings | None = None,
) -> Assignment:
    """Assign objects to anchor points by score^alpha * IoU^beta.

    An object takes the top-k anchor points among those whose centre lies inside its box; an anchor point that several
    objects took goes to the one it overlaps most, see `TaskAlignedSettings.conflicts`.

    Args:
        scores: float [B, A, C], class probabilities.
        boxes: float [B, A, 4], predicted xyxy in network pixels.
        anchor_centres: float [A, 2], (x, y) in network pixels.
        truth_boxes: float [M, 4], xyxy in network pixels, all pictures' objects one after another.
        truth_labels: int64 [M].
        counts: int64 [B], objects of each picture; they sum to M.
        settings: the constants; the paper's if None.
    """
    settings = settings or TaskAlignedSettings()
    batch, anchors, _ = scores.shape
    objects = truth_boxes.shape[0]
    if objects == 0:
        nothing = torch.zeros(batch, anchors, dtype=torch.int64, device=scores.device)
        return Assignment(nothing.bool(), nothing, nothing.to(scores.dtype))
    picture = torch.repeat_interleave(torch.arange(batch, device=scores.device), counts, output_size=objects)
    overlap = iou(truth_boxes[:, None], boxes[picture])  # [M, A]
    score = scores.transpose(1, 2)[picture, truth_labels]  # [M, A]
    inside = _centre_inside(anchor_centres, truth_boxes)
    metric = score.pow(settings.alpha) * overlap.pow(settings.beta)

    top = (metric * inside).topk(min(settings.top_k, anchors), dim=1).indices
    taken = torch.zeros_like(inside).scatter_(1, top, True) & inside
    if settings.conflicts == "all":
        contested = torch.zeros_like(scores[..., 0]).index_add(0, picture, taken.to(scores.dtype)) > 1
        taken = torch.where(contested[picture], _best_of(torch.ones_like(taken), overlap, picture, batch), taken)
    else:
        taken = _best_of(taken, overlap, picture, batch)

    # Each object's targets span up to its best IoU, so that an easy object asks for a high score.
    metric = metric * taken
    best_metric = metric.amax(dim=1, keepdim=True)
    best_overlap = (overlap * taken).amax(dim=1, keepdim=True)
    # The divisor is only kept from being 0: IoU^6 of an untrained net is tiny, and any larger constant would drown it.
    quality = metric / best_metric.clamp(min=torch.finfo(metric.dtype).tiny) * best_overlap

    # After settling, an anchor point has at most one object, so sums over a picture's objects pick that object's value.
    zeros = torch.zeros(batch, anchors, device=scores.device, dtype=quality.dtype)
    rows = torch.arange(objects, device=scores.device)[:, None] * taken
    return Assignment(
        positive=zeros.index_add(0, picture, taken.to(quality.dtype)) > 0,
        object_index=torch.zeros(batch, anchors, dtype=torch.int64, device=scores.device).index_add(0, picture, rows),
        quality=zeros.index_add(0, picture, quality),
    )


def _centre_inside(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return bool [M, A]: whether centre [A, 2] lies strictly inside box [M, 4]."""
    x, y = centres[:, 0], centres[:, 1]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _best_of(taken: Tensor, overlap: Tensor, picture: Tensor, batch: int) -> Tensor:
    """Return `taken` [M, A] with at most one object an anchor point of a picture: of those in it, the highest IoU's.

    Equal overlaps go to the first object, so that duplicated labels do not train an anchor point twice.
    """
    objects, anchors = taken.shape
    index = picture[:, None].expand(objects, anchors)
    candidate = torch.where(taken, overlap, -1.0)
    best = candidate.new_full((batch, anchors), -1.0).scatter_reduce_(0, index, candidate, "amax")
    winner = taken & (candidate == best[picture])
    rows = torch.arange(objects, device=taken.device)[:, None].expand(objects, anchors)
    rows = torch.where(winner, rows, objects)
    first = rows.new_full((batch, anchors), objects).scatter_reduce_(0, index, rows, "amin")
    return winner & (rows == first[picture])
