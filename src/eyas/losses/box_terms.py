"""The terms of a loss that concern the boxes of assigned anchor points: a row of `BOX_TERMS` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from eyas.losses.distribution import distribution_focal
from eyas.losses.giou import giou_loss
from eyas.losses.l1 import side_l1


class Matched(NamedTuple):
    """P anchor points with the objects that they learn; everything in units of their stride.

    Attributes:
        boxes: float [P, 4], predicted, xyxy.
        truth: float [P, 4], the objects', xyxy.
        bin_logits: float [P, 4, reg_max + 1], of the distances to the left, top, right and bottom side.
        distances: float [P, 4], the true distances in the same order; negative where the point lies outside.
    """

    boxes: Tensor
    truth: Tensor
    bin_logits: Tensor
    distances: Tensor


# Name of a term -> what it is of each anchor point, [P]. They are weighed by the target score and summed.
BOX_TERMS: Mapping[str, Callable[[Matched], Tensor]] = MappingProxyType(
    {
        "iou": lambda matched: giou_loss(matched.boxes, matched.truth),
        "dfl": lambda matched: distribution_focal(matched.bin_logits, matched.distances),
        "l1": lambda matched: side_l1(matched.boxes, matched.truth),
    }
)
