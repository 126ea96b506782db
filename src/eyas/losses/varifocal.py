"""Varifocal loss: learn the IoU-aware score of positives in full, and down-weight easy negatives.

Zhang et al., "VarifocalNet: An IoU-aware Dense Object Detector", CVPR 2021 (arXiv 2008.13367).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def varifocal(logits: Tensor, targets: Tensor, positive: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Return the loss of each (anchor point, class), not reduced: [...].

    Positives weigh as much as their target; negatives weigh alpha * p^gamma.

    Args:
        logits: float [...], class logits.
        targets: float [...], target scores in 0..1, 0 for negatives.
        positive: bool [...], True at the class of an assigned object.
        alpha: weight of the negatives.
        gamma: how fast easy negatives fade.
    """
    weight = torch.where(positive, targets, alpha * logits.sigmoid().pow(gamma))
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
