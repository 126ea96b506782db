"""A head that needs no suppression: a branch that gives one box an object, taught beside one that gives several.

Both look at the same features. The dense branch is the head "ndfl": it teaches the features, and is dropped when
training is over. The one-to-one branch learns from them without changing them, so its few positives take nothing from
what the dense one's many teach (YOLOv10, arXiv 2405.14458), and has no bins: a side's distance is one value (YOLO26,
arXiv 2606.03748).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from eyas.head_output import DualOutput
from eyas.models.heads import ndfl
from eyas.models.layers import Layers, TrainingOnly
from eyas.models.widths import Layout, below
from eyas.tensor_boxes import boxes_from_distances

if TYPE_CHECKING:
    from eyas.models.spec import YoloNasSpec
    from eyas.types import Vocabulary

START = 3.0  # strides, of an untrained head's distances: see `ndfl.BIN_SLOPE`


class DualHeads(nn.Module):
    """Both branches, each with a head a level.

    Args:
        spec: widths, activation, bins of the dense branch.
        channels: the widths of p3, p4 and p5.
        vocabulary: the classes.
        layers: makes the parts.
    """

    def __init__(
        self, spec: YoloNasSpec, channels: tuple[int, int, int], vocabulary: Vocabulary, layers: Layers
    ) -> None:
        super().__init__()
        self.one_to_one = ndfl.Heads(spec, channels, vocabulary, layers, reg_max=0)
        self.dense = TrainingOnly(ndfl.Heads(spec, channels, vocabulary, layers))

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> DualOutput:
        """Return the predictions of both branches, of the dense one in training only."""
        dense = self.dense(p3, p4, p5)
        if dense is not None:
            p3, p4, p5 = p3.detach(), p4.detach(), p5.detach()
        return DualOutput(self.one_to_one(p3, p4, p5), dense)


def widths(spec: YoloNasSpec, channels: tuple[int, int, int]) -> Layout:
    """Return the channels of every layer of both branches."""
    kept = ndfl.widths(spec, channels, reg_max=0)
    return below("one_to_one", kept) | below("dense.part", ndfl.widths(spec, channels))


def initialize(heads: nn.Module) -> None:
    """Set what both untrained branches predict: the prior of each class, and boxes of six strides."""
    ndfl.initialize(heads)
    for module in heads.get_submodule("one_to_one").modules():
        if isinstance(module, ndfl.Head):
            nn.init.constant_(module.reg_pred.bias, math.log(math.expm1(START)))  # type: ignore[arg-type]


def decode(output: DualOutput, candidates: int) -> tuple[Tensor, Tensor]:
    """Return the best anchors of the one-to-one branch, best first; see `eyas.models.heads.ndfl.decode`."""
    return ndfl.select(output.one_to_one, candidates, _boxes)


def _boxes(box_logits: Tensor, anchor_points: Tensor, strides: Tensor) -> Tensor:
    """Return the boxes [..., 4] in network pixels of values [..., 4] at the points [..., 2]."""
    return boxes_from_distances(box_logits, anchor_points) * strides
