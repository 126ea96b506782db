"""Box regression by the distances of the sides."""

from __future__ import annotations

from torch import Tensor


def side_l1(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return the mean distance between the sides of each pair of xyxy boxes, not reduced: [P], in the boxes' unit.

    Args:
        boxes: float [P, 4], predicted, in strides: in pixels it would drown the other terms.
        targets: float [P, 4], the truth, in the same unit.
    """
    return (boxes - targets).abs().mean(dim=-1)
