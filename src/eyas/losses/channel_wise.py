"""Channel-wise distillation: each channel of the features shall look where the teacher's does.

Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021 (arXiv 2011.13256).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def channel_wise(features: Tensor, teacher_features: Tensor, temperature: float) -> Tensor:
    """Return the divergence of each channel's distribution over the image from the teacher's, averaged: [], at least 0.

    A channel becomes a distribution by a softmax over its H x W places, so what counts is where it is large, not how
    large it is; the square of the temperature keeps the gradient's size.

    Args:
        features: float [B, C, H, W], the student's.
        teacher_features: float [B, C, H, W], the teacher's.
        temperature: both are divided by it.
    """
    student, teacher = (
        F.log_softmax(each.float().flatten(2) / temperature, dim=-1) for each in (features, teacher_features)
    )
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * divergence.mean()
