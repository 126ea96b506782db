"""Distribution focal loss: a distance is learnt as a distribution over bins.

Li et al., "Generalized Focal Loss", NeurIPS 2020 (arXiv 2006.04388).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distribution_focal(logits: Tensor, distances: Tensor) -> Tensor:
    """Return the cross entropy with the two bins beside the target, averaged over the four sides: [P].

    Args:
        logits: float [P, 4, reg_max + 1], bin logits for left, top, right, bottom.
        distances: float [P, 4], target distances in stride units; clipped to what the bins can express.
    """
    bins = logits.shape[-1]
    target = distances.clamp(0, bins - 1 - 0.01)
    low = target.floor().long()
    fraction = target - low
    log_probability = F.log_softmax(logits, dim=-1)
    at_low = log_probability.gather(-1, low[..., None])[..., 0]
    at_high = log_probability.gather(-1, low[..., None] + 1)[..., 0]
    return -((1 - fraction) * at_low + fraction * at_high).mean(dim=-1)
