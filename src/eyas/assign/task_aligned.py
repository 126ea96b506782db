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
    """The anchor points that learn an object: K = M objects times the k that each may take, not all of which count.

    So no shape depends on what the boxes are, and a training step with this in it can be captured once and replayed.

    Attributes:
        positive: bool [K], whether the entry counts. No two that do have the same anchor point.
        anchor: int64 [K], the anchor point as image * A + row; in range where not positive too.
        object_index: int64 [K], the row of its object in the packed truth; in range where not positive too.
        quality: float32 [K], the target score in 0..1: the alignment, scaled so that an object's best anchor point has
            the object's best IoU; 0 where not positive.
    """

    positive: Tensor
    anchor: Tensor
    object_index: Tensor
    quality: Tensor

    def compact(self) -> Assignment:
        """Return the entries that count, by image and anchor point. Waits for the device: their number is data."""
        kept = self.positive.nonzero()[:, 0]
        kept = kept[self.anchor[kept].argsort()]
        return Assignment(*(values[kept] for values in self))


class Alignment(NamedTuple):
    """How well M objects and the A anchor points of their images agree.

    Attributes:
        real: bool [M], whether the object is none that pads the truth.
        image: int64 [M], its image.
        overlap: float [M, A], IoU of the predicted boxes with it.
        metric: float [M, A], score^alpha * IoU^beta.
        top: int64 [M, k], the anchor points that it wants: the best aligned of those whose centre lies inside it.
        inside: bool [M, k], whether they are such: where there are fewer, others stand in the rest.
    """

    real: Tensor
    image: Tensor
    overlap: Tensor
    metric: Tensor
    top: Tensor
    inside: Tensor


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
        truth_boxes: float [M, 4], xyxy in network pixels, all images' objects one after another.
        truth_labels: int64 [M].
        counts: int64 [B], objects of each image; rows beyond their sum are padding, and take nothing.
        settings: the constants; the paper's if None.
    """
    settings = settings or TaskAlignedSettings()
    batch, anchors, _ = scores.shape
    objects = truth_boxes.shape[0]
    rows = torch.arange(objects, device=scores.device)
    real, image, overlap, metric, top, inside = alignment(
        scores, boxes, anchor_centres, truth_boxes, truth_labels, counts, settings
    )
    taken = inside.flatten()
    anchor = (image[:, None] * anchors + top).flatten()
    taker = rows[:, None].expand_as(top).flatten()
    if settings.conflicts == "all":
        first = _first_of(taken, taker, anchor, batch * anchors)
        contested = torch.zeros_like(first).scatter_add_(0, anchor, taken.long()) > 1
        everywhere = image[:, None] * anchors + torch.arange(anchors, device=scores.device)  # [M, A]
        taking, everyone = (value[:, None].expand_as(everywhere).flatten() for value in (real, rows))
        best = best_of(taking, everyone, overlap.flatten(), everywhere.flatten(), batch * anchors)
        owner = torch.where(contested[anchor], best[anchor], taker)
        positive = taken & (taker == first[anchor]) & (owner < objects)
        owner = owner.clamp(max=objects - 1)
    else:
        best = best_of(taken, taker, overlap.gather(1, top).flatten(), anchor, batch * anchors)
        owner, positive = taker, taken & (taker == best[anchor])

    # Each object's targets span up to its best IoU, so that an easy object asks for a high score.
    chosen = owner * anchors + anchor % anchors
    aligned = torch.where(positive, metric.flatten()[chosen], 0.0)
    overlapped = torch.where(positive, overlap.flatten()[chosen], 0.0)
    none = metric.new_zeros(objects)
    best_aligned = none.scatter_reduce(0, owner, aligned, "amax")[owner]
    best_overlap = none.scatter_reduce(0, owner, overlapped, "amax")[owner]
    # The divisor is only kept from being 0: IoU^6 of an untrained net is tiny, and any larger constant would drown it.
    quality = aligned / best_aligned.clamp(min=torch.finfo(metric.dtype).tiny) * best_overlap
    return Assignment(positive, anchor, owner, quality)


def alignment(
    scores: Tensor,
    boxes: Tensor,
    anchor_centres: Tensor,
    truth_boxes: Tensor,
    truth_labels: Tensor,
    counts: Tensor,
    settings: TaskAlignedSettings,
) -> Alignment:
    """Return how well anchor points and objects agree; the arguments are those of `task_aligned`."""
    batch, anchors, _ = scores.shape
    ends = counts.cumsum(0)
    rows = torch.arange(len(truth_boxes), device=scores.device)
    real = rows < ends[-1]
    image = torch.searchsorted(ends, rows, right=True).clamp(max=batch - 1)
    overlap = iou(truth_boxes[:, None], boxes[image])
    score = scores.transpose(1, 2)[image, truth_labels]  # [M, A]
    inside = _centre_inside(anchor_centres, truth_boxes) & real[:, None]
    metric = score.pow(settings.alpha) * overlap.pow(settings.beta)
    top = (metric * inside).topk(min(settings.top_k, anchors), dim=1).indices
    return Alignment(real, image, overlap, metric, top, inside.gather(1, top))


def _centre_inside(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return bool [M, A]: whether centre [A, 2] lies strictly inside box [M, 4]."""
    x, y = centres[:, 0], centres[:, 1]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _first_of(taken: Tensor, taker: Tensor, anchor: Tensor, anchors: int) -> Tensor:
    """Return int64 [anchors]: the first object that took each anchor point; beyond the last object where none did.

    Args:
        taken: bool [K], which entries count.
        taker: int64 [K], their objects.
        anchor: int64 [K], their anchor points.
        anchors: how many anchor points there are.
    """
    nobody = torch.iinfo(taker.dtype).max
    return taker.new_full((anchors,), nobody).scatter_reduce_(0, anchor, torch.where(taken, taker, nobody), "amin")


def best_of(taken: Tensor, taker: Tensor, overlap: Tensor, anchor: Tensor, anchors: int) -> Tensor:
    """Return what `_first_of` does of the objects of highest IoU [K] among those that took an anchor point.

    Equal overlaps go to the first object, so that duplicated labels do not train an anchor point twice.
    """
    candidate = torch.where(taken, overlap, -1.0)
    best = candidate.new_full((anchors,), -1.0).scatter_reduce_(0, anchor, candidate, "amax")
    return _first_of(taken & (candidate == best[anchor]), taker, anchor, anchors)
