"""The training loss of a dense detector: assignment, then varifocal + GIoU + DFL (PP-YOLOE, arXiv 2203.16250)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eyas.assign.task_aligned import task_aligned
from eyas.head_output import HeadOutput
from eyas.losses.criterion import Criterion, Reduce, TruthBatch
from eyas.losses.distribution import distribution_focal
from eyas.losses.giou import giou_loss
from eyas.losses.settings import LossSettings
from eyas.losses.varifocal import varifocal
from eyas.tensor_boxes import boxes_from_bins


class DetectionCriterion(Criterion):
    """The loss of a dense head that gives `HeadOutput`; see `detection_loss`.

    Args:
        settings: weights and constants; the defaults if None.
        reduce: averages a scalar over processes; the identity if None.
    """

    terms = ("class", "iou", "dfl")

    def __init__(self, settings: LossSettings | None = None, reduce: Reduce | None = None) -> None:
        super().__init__(reduce)
        self.settings = settings or LossSettings()

    def forward(self, output: HeadOutput, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the weighted terms "class", "iou" and "dfl", each a scalar."""
        return detection_loss(*output, batch.boxes, batch.labels, batch.counts, self.settings, self.reduce)


def detection_loss(
    class_logits: Tensor,
    box_logits: Tensor,
    anchor_points: Tensor,
    strides: Tensor,
    truth_boxes: Tensor,
    truth_labels: Tensor,
    counts: Tensor,
    settings: LossSettings | None = None,
    reduce_normaliser: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the weighted terms "class", "iou" and "dfl", each a scalar; the training loss is their sum.

    Every term is a sum over the batch divided by the sum of the assigned target scores (at least 1), so the terms
    stay comparable whatever the number of objects.

    Args:
        class_logits: float [B, A, C].
        box_logits: float [B, A, 4 * (reg_max + 1)], bins of the distances left, top, right, bottom in stride units.
        anchor_points: float [A, 2], cell centres in stride units.
        strides: float [A, 1], pixels.
        truth_boxes: float [M, 4], xyxy in network pixels, all pictures' objects one after another.
        truth_labels: int64 [M].
        counts: int64 [B], objects of each picture.
        settings: weights and constants.
        reduce_normaliser: maps the local sum of target scores to its mean over processes; the identity if None.
    """
    settings = settings or LossSettings()
    class_logits, box_logits = class_logits.float(), box_logits.float()
    bins = box_logits.shape[-1] // 4
    box_logits = box_logits.view(*box_logits.shape[:-1], 4, bins)
    boxes = boxes_from_bins(box_logits, anchor_points)  # stride units
    assigned = task_aligned(
        class_logits.detach().sigmoid(),
        boxes.detach() * strides,
        anchor_points * strides,
        truth_boxes,
        truth_labels,
        counts,
        settings.assigner,
    )
    normaliser = assigned.quality.sum()
    if reduce_normaliser is not None:
        normaliser = reduce_normaliser(normaliser)
    normaliser = normaliser.clamp(min=1.0)

    where = assigned.positive.nonzero(as_tuple=True)  # ([P], [P]): picture, anchor point
    row = assigned.object_index[where]
    quality = assigned.quality[where]
    positive = torch.zeros_like(class_logits, dtype=torch.bool)
    targets = torch.zeros_like(class_logits)
    label = truth_labels[row]
    positive[where[0], where[1], label] = True
    targets[where[0], where[1], label] = quality
    class_loss = varifocal(class_logits, targets, positive).sum()

    truth = truth_boxes[row] / strides[where[1]]
    points = anchor_points[where[1]]
    distances = torch.cat([points - truth[:, :2], truth[:, 2:] - points], dim=-1)
    iou_loss = (giou_loss(boxes[where], truth) * quality).sum()
    dfl_loss = (distribution_focal(box_logits[where], distances) * quality).sum()
    return {
        "class": settings.class_weight * class_loss / normaliser,
        "iou": settings.iou_weight * iou_loss / normaliser,
        "dfl": settings.dfl_weight * dfl_loss / normaliser,
    }
