"""The loss of a head of two branches: one-to-one, which needs no suppression, and dense, which teaches the features.

YOLOv10 (arXiv 2405.14458) and, with weights that go over from the dense branch to the other, YOLO26 (arXiv 2606.03748).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyas.assign.assigners import ASSIGNERS, Truth, assigner_of
from eyas.head_output import DualOutput, HeadOutput
from eyas.losses.box_terms import BOX_TERMS
from eyas.losses.criterion import Criterion, PaddedTruth, Reduce, TruthBatch
from eyas.losses.detection import Said, assigned_to, check_terms, terms_of
from eyas.losses.settings import LossSettings
from eyas.tensor_boxes import boxes_from_distances

ONE = "one_to_one"  # the assigner of the branch that is kept: each object is learnt by one anchor point
DENSE = "dense_"  # before the names of the other branch's terms
WITHOUT_BINS = tuple(name for name in BOX_TERMS if name != "dfl")


class DualCriterion(Criterion):
    """The loss of a head that gives `DualOutput` in training.

    Each branch has its own assignment, of its own predictions, and its own sum of target scores that its terms are
    divided by: "class", "iou", "l1" and the further ones of the one-to-one branch, and the same of the dense branch
    with "dense_" before their names.

    Args:
        settings: weights and constants; the defaults if None.
        reduce: averages a scalar over processes; the identity if None.

    Attributes:
        dense_weight: float32 [], what the dense branch's terms are weighed with now; 1 minus it is the other's.

    Raises:
        UserError: the settings name a term or an assigner that there is not, or a term of bins.
    """

    static = True
    dense_weight: Tensor

    def __init__(self, settings: LossSettings | None = None, reduce: Reduce | None = None) -> None:
        super().__init__(reduce)
        self.settings = settings or LossSettings()
        check_terms(self.settings.extra, WITHOUT_BINS)
        self.box_weights = {
            "iou": self.settings.iou_weight, "l1": self.settings.dual.l1_weight, **self.settings.extra,
        }  # fmt: skip
        self.static = self.static and assigner_of(self.settings.assignment).static
        names = ("class", *self.box_weights)
        self.terms = (*names, *(DENSE + name for name in names))
        self.register_buffer("dense_weight", torch.tensor(self.settings.dual.dense_start), persistent=False)

    def set_progress(self, progress: float) -> None:
        """Let the weight go over from the dense branch to the other, in a straight line."""
        start, end = self.settings.dual.dense_start, self.settings.dual.dense_end
        self.dense_weight.fill_(start + (end - start) * progress)

    def forward(self, output: DualOutput, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the weighted terms of both branches, each a scalar."""
        assert output.dense is not None, "the head was not in training mode"
        settings, truth = self.settings, Truth(batch.boxes, batch.labels, batch.counts)
        static = isinstance(batch, PaddedTruth)
        terms: dict[str, Tensor] = {}
        for branch, before, weight, assigner, constants in (
            (output.one_to_one, "", 1.0 - self.dense_weight, ASSIGNERS[ONE], settings.dual.assigner),
            (output.dense, DENSE, self.dense_weight, assigner_of(settings.assignment), settings.assigner),
        ):
            said = _said(branch)
            assigned = assigned_to(said, truth, assigner, constants, static=static)
            found = terms_of(said, truth, assigned, settings, self.box_weights, self.reduce)
            terms |= {before + name: weight * value for name, value in found.items()}
        return terms


def _said(branch: HeadOutput) -> Said:
    """Return what a branch without bins says, its boxes in stride units."""
    values = branch.box_logits.float()
    boxes = boxes_from_distances(values, branch.anchor_points)
    return Said(branch.class_logits.float(), boxes, values.unsqueeze(-1), branch.anchor_points, branch.strides)
