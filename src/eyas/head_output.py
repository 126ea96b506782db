"""What every detection network returns, in training and inference alike."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class HeadOutput(NamedTuple):
    """Raw predictions of all levels, finest level first, row by row within a level; always float32.

    Attributes:
        class_logits: [B, A, C], before the sigmoid.
        box_logits: [B, A, 4 * (reg_max + 1)], the bins of the distance to the left, top, right and bottom side in this
            order (Generalized Focal Loss, arXiv 2006.04388), before the softmax; of a head without bins [B, A, 4], one
            value a side (`eyas.tensor_boxes.boxes_from_distances`).
        anchor_points: [A, 2], (x, y) centre of each cell in units of its stride: column + 0.5, row + 0.5.
        strides: [A, 1], pixels a cell.
    """

    class_logits: Tensor
    box_logits: Tensor
    anchor_points: Tensor
    strides: Tensor


class DualOutput(NamedTuple):
    """What a head of two branches says of the same anchor points.

    Attributes:
        one_to_one: the branch that gives one box an object, and is kept; it has no bins.
        dense: the branch that gives several, with bins; None outside of training.
    """

    one_to_one: HeadOutput
    dense: HeadOutput | None
