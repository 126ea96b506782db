"""The loss of a head of two branches: one-to-one, which needs no suppression, and dense, which teaches the features.

YOLOv10 (arXiv 2405.14458) and, with weights that go over from the dense branch to the other, YOLO26 (arXiv 2606.03748).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyas.assign.assigners import ASSIGNERS, Truth
from eyas.head_output import DualOutput, HeadOutput
from eyas.losses.criterion import Criterion, PaddedTruth, Reduce, TruthBatch
from eyas.losses.detection import DetectionCriterion, HeadPredictions, assigned_to, terms_of
from eyas.losses.settings import LossSettings
from eyas.tensor_boxes import boxes_from_distances

ONE = "one_to_one"  # the assigner of the branch that is kept: each object is learnt by one anchor point
DENSE = "dense_"  # before the names of the other branch's terms


class DualCriterion(Criterion):
    """The loss of a head that gives `DualOutput` in training.

    Each branch is assigned by its own predictions, and its terms are divided by its own sum of target scores: "class",
    "iou" and "l1" of the one-to-one branch, and those of `DetectionCriterion` of the dense branch, with "dense_" before
    their names. Further terms are both branches', but for those of bins.

    Args:
        settings: weights and constants; the defaults if None.
        reduce: averages a scalar over processes; the identity if None.

    Attributes:
        dense_weight: float32 [], what the dense branch's terms are weighed with now; 1 minus it is the other's.

    Raises:
        UserError: the settings name a term, a class loss or an assigner that there is not.
    """

    dense_weight: Tensor

    def __init__(self, settings: LossSettings | None = None, reduce: Reduce | None = None) -> None:
        super().__init__(reduce)
        self.settings = settings or LossSettings()
        self.dense = DetectionCriterion(self.settings, reduce)
        further = {name: weight for name, weight in self.settings.extra.items() if name != "dfl"}
        self.box_weights = {"iou": self.settings.iou_weight, **further, "l1": self.settings.dual.l1_weight}
        self.static = self.dense.static and ASSIGNERS[ONE].static
        self.terms = ("class", *self.box_weights, *(DENSE + name for name in self.dense.terms))
        self.register_buffer("dense_weight", torch.tensor(self.settings.dual.dense_start), persistent=False)

    def set_progress(self, progress: float) -> None:
        """Let the weight go over from the dense branch to the other, in a straight line."""
        start, end = self.settings.dual.dense_start, self.settings.dual.dense_end
        self.dense_weight.fill_(start + (end - start) * progress)

    def forward(self, output: DualOutput, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the weighted terms of both branches, each a scalar."""
        assert output.dense is not None, "the head was not in training mode"
        truth, said = Truth(batch.boxes, batch.labels, batch.counts), _said(output.one_to_one)
        static = isinstance(batch, PaddedTruth)
        assigned = assigned_to(said, truth, ASSIGNERS[ONE], self.settings.dual.assigner, static=static)
        kept = terms_of(said, truth, assigned, self.settings, self.box_weights, self.reduce)
        dense = self.dense(output.dense, batch)
        return {name: (1.0 - self.dense_weight) * value for name, value in kept.items()} | {
            DENSE + name: self.dense_weight * value for name, value in dense.items()
        }


def _said(branch: HeadOutput) -> HeadPredictions:
    values = branch.box_logits.float()
    boxes = boxes_from_distances(values, branch.anchor_points)
    return HeadPredictions(
        branch.class_logits.float(), boxes, values.unsqueeze(-1), branch.anchor_points, branch.strides
    )
