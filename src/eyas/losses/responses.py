"""Learning what a teacher answers: its class scores and its boxes at each anchor point.

Each class is a binary question, as it is for the loss (Yang et al., "Bridging Cross-task Protocol Inconsistency for
Distillation in Dense Object Detection", ICCV 2023, arXiv 2308.14286): what both sides say is compared by cross entropy,
weighed by how far they are apart, as quality focal loss does (arXiv 2006.04388). So the background, of which both are
sure, is silent without being cut out. Boxes are compared by their overlap, weighed by the teacher's best class score
(Wang et al., "CrossKD", CVPR 2024, arXiv 2306.11369).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from eyas.losses.giou import giou_loss


def class_response(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return |p - t| times the cross entropy of p with t, not reduced: [...], 0 where the probabilities are the same.

    Args:
        logits: float [...], the student's class logits.
        teacher_logits: float [...], the teacher's.
    """
    targets = teacher_logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (logits.sigmoid() - targets).abs() * entropy


def box_response(boxes: Tensor, teacher_boxes: Tensor, confidence: Tensor) -> Tensor:
    """Return 1 - GIoU of both sides' boxes times the confidence, not reduced: [...].

    Args:
        boxes: float [..., 4], the student's, xyxy.
        teacher_boxes: float [..., 4], the teacher's, in the same unit.
        confidence: float [...], the teacher's best class score at each anchor point.
    """
    return confidence * giou_loss(boxes, teacher_boxes)
