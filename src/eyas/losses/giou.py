"""Box regression by generalized IoU."""

from __future__ import annotations

from torch import Tensor

from eyas.tensor_boxes import giou


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - GIoU of each pair of xyxy boxes, not reduced: [P], in 0..2.

    Args:
        boxes: float [P, 4], predicted.
        targets: float [P, 4], the truth, in the same unit.
    """
    return 1.0 - giou(boxes, targets)
