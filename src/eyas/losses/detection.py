"""The training loss of a dense detector: assignment, then class loss + GIoU + DFL (PP-YOLOE, arXiv 2203.16250)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from eyas.assign.assigners import AssignerRow, Predicted, Truth, assigner_of
from eyas.assign.settings import TaskAlignedSettings
from eyas.assign.task_aligned import Assignment
from eyas.errors import UserError, row_of, suggest
from eyas.head_output import HeadOutput
from eyas.losses.box_terms import BOX_TERMS, Matched
from eyas.losses.class_losses import CLASS_LOSSES
from eyas.losses.criterion import Criterion, PaddedTruth, Reduce, TruthBatch
from eyas.losses.settings import LossSettings
from eyas.tensor_boxes import boxes_from_bins


class DetectionCriterion(Criterion):
    """The loss of a dense head that gives `HeadOutput`; see `detection_loss`.

    Args:
        settings: weights and constants; the defaults if None.
        reduce: averages a scalar over processes; the identity if None.

    Raises:
        UserError: the settings name a term, a class loss or an assigner that there is not.
    """

    static = True

    def __init__(self, settings: LossSettings | None = None, reduce: Reduce | None = None) -> None:
        super().__init__(reduce)
        self.settings = settings or LossSettings()
        unknown = [name for name in self.settings.extra if name not in BOX_TERMS]
        if unknown:
            raise UserError(
                f"There is no loss term '{unknown[0]}'{suggest(unknown[0], BOX_TERMS)}.",
                expected="some of " + ", ".join(BOX_TERMS),
                where="loss.extra",
            )
        row_of(CLASS_LOSSES, self.settings.classification, "There is no class loss", "loss.classification")
        self.static = self.static and assigner_of(self.settings.assignment).static
        self.terms = ("class", *self.settings.box_weights())

    def forward(self, output: HeadOutput, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the weighted terms "class", "iou", "dfl" and those of `LossSettings.extra`, each a scalar."""
        truth = (batch.boxes, batch.labels, batch.counts)
        static = isinstance(batch, PaddedTruth)
        return detection_loss(*output, *truth, self.settings, self.reduce, static=static)


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
    *,
    static: bool = False,
) -> dict[str, Tensor]:
    """Return the weighted terms: "class", "iou", "dfl" and those of `LossSettings.extra`; the loss is their sum.

    Every term is a sum over the batch divided by the sum of the assigned target scores (at least 1), so the terms
    stay comparable whatever the number of objects.

    Args:
        class_logits: float [B, A, C].
        box_logits: float [B, A, 4 * (reg_max + 1)], bins of the distances left, top, right, bottom in stride units.
        anchor_points: float [A, 2], cell centres in stride units.
        strides: float [A, 1], pixels.
        truth_boxes: float [M, 4], xyxy in network pixels, all images' objects one after another.
        truth_labels: int64 [M].
        counts: int64 [B], objects of each image; rows beyond their sum are padding.
        settings: weights and constants.
        reduce_normaliser: maps the local sum of target scores to its mean over processes; the identity if None.
        static: no shape depends on the data and nothing waits for the device. The gradients are the same to the bit,
            the sums over positives to their rounding: zeros stand between the summands.
    """
    settings = settings or LossSettings()
    class_logits, box_logits = class_logits.float(), box_logits.float()
    bins = box_logits.shape[-1] // 4
    box_logits = box_logits.view(*box_logits.shape[:-1], 4, bins)
    boxes = boxes_from_bins(box_logits, anchor_points)  # stride units
    said = HeadPredictions(class_logits, boxes, box_logits, anchor_points, strides)
    truth = Truth(truth_boxes, truth_labels, counts)
    assigned = assigned_to(said, truth, assigner_of(settings.assignment), settings.assigner, static=static)
    return terms_of(said, truth, assigned, settings, settings.box_weights(), reduce_normaliser)


class HeadPredictions(NamedTuple):
    """What a head says at its A anchor points.

    Attributes:
        class_logits: float32 [B, A, C].
        boxes: float32 [B, A, 4], xyxy in units of the points' strides.
        side_logits: float32 [B, A, 4, D], what the boxes were made of: D values for each side.
        anchor_points: float32 [A, 2], (x, y) in stride units.
        strides: float32 [A, 1], pixels.
    """

    class_logits: Tensor
    boxes: Tensor
    side_logits: Tensor
    anchor_points: Tensor
    strides: Tensor


def assigned_to(
    said: HeadPredictions, truth: Truth, assigner: AssignerRow, settings: TaskAlignedSettings, *, static: bool
) -> Assignment:
    """Return which anchor points learn which objects; with `static` in a shape that does not depend on that."""
    points, strides = said.anchor_points, said.strides
    assigned = assigner.assign(
        Predicted(said.class_logits.detach().sigmoid(), said.boxes.detach() * strides, points * strides, strides),
        truth,
        settings,
    )
    return assigned if static else assigned.compact()


def terms_of(
    said: HeadPredictions,
    truth: Truth,
    assigned: Assignment,
    settings: LossSettings,
    box_weights: Mapping[str, float],
    reduce_normaliser: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the weighted terms of what is said, of the classes ("class") and of the assigned boxes, each a scalar.

    Args:
        said: by the head.
        truth: the objects.
        assigned: who learns them.
        settings: the kind and the factor of the term "class".
        box_weights: names of the other terms, rows of `BOX_TERMS`, and their factors.
        reduce_normaliser: maps the local sum of target scores to its mean over processes; the identity if None.
    """
    class_logits = said.class_logits
    positive, anchor, row, quality = assigned
    anchors = class_logits[..., 0].numel()
    # What an entry that doesn't count would write goes to one place more at the end, which is cut off.
    place = torch.where(positive, anchor, anchors)
    normaliser = (
        class_logits.new_zeros(anchors + 1).scatter_(0, place, quality)[:-1].view(class_logits.shape[:-1]).sum()
    )
    if reduce_normaliser is not None:
        normaliser = reduce_normaliser(normaliser)
    normaliser = normaliser.clamp(min=1.0)

    classes = class_logits.shape[-1]
    place = torch.where(positive, anchor * classes + truth.labels[row], anchors * classes)
    spare = class_logits.new_zeros(anchors * classes + 1)
    learnt = spare.bool().scatter_(0, place, True)[:-1].view_as(class_logits)
    targets = spare.scatter_(0, place, quality)[:-1].view_as(class_logits)
    class_loss = CLASS_LOSSES[settings.classification](class_logits, targets, learnt).sum()

    terms = {"class": settings.class_weight * class_loss / normaliser}
    matched = _matched(said, truth, anchor, row)
    for name, weight in box_weights.items():
        terms[name] = weight * (BOX_TERMS[name](matched) * quality).sum() / normaliser
    return terms


def _matched(said: HeadPredictions, truth: Truth, anchor: Tensor, row: Tensor) -> Matched:
    """Return anchor points [P] of the batch with the objects [P] that they learn."""
    cell = anchor % len(said.anchor_points)
    points = said.anchor_points[cell]
    boxes = truth.boxes[row] / said.strides[cell]
    distances = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=-1)
    own, sides = (each.flatten(0, 1).index_select(0, anchor) for each in (said.boxes, said.side_logits))
    return Matched(own, boxes, sides, distances)
