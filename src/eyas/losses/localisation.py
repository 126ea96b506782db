"""Localisation distillation: the doubt about where a side lies is learned with it.

Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022 (arXiv 2102.12252).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bins_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the divergence of the bins from the teacher's, averaged over the four sides: [...], at least 0.

    Args:
        logits: float [..., 4, reg_max + 1], the student's, of the distances to the four sides.
        teacher_logits: float [..., 4, reg_max + 1], the teacher's.
        temperature: both are divided by it, and the divergence multiplied by its square, which keeps the gradient's
            size.
    """
    student, teacher = (F.log_softmax(each / temperature, dim=-1) for each in (logits, teacher_logits))
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * divergence.mean(dim=-1)
