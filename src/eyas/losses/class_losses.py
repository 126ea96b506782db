"""The losses of class scores: a row of `CLASS_LOSSES` each.

All learn the quality of an assigned box as the score of its class, and 0 elsewhere; they differ in how much easy
anchor points weigh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from eyas.losses.varifocal import varifocal


def quality_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the plain binary cross-entropy to the target scores, of each (anchor point, class): [...].

    Args:
        logits: float [...], class logits.
        targets: float [...], target scores in 0..1, 0 for negatives.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def quality_focal(logits: Tensor, targets: Tensor, *, beta: float = 2.0) -> Tensor:
    """Return the cross-entropy weighed by |target - score|^beta: [...].

    Li et al., "Generalized Focal Loss", NeurIPS 2020 (arXiv 2006.04388).

    Args:
        logits: float [...], class logits.
        targets: float [...], target scores in 0..1, 0 for negatives.
        beta: how fast what is nearly right fades.
    """
    weight = (targets - logits.sigmoid()).abs().pow(beta)
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


# The recipe's `loss.classification` -> the loss of each (anchor point, class), of its logit, its target and whether it
# is assigned.
CLASS_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "varifocal": varifocal,
        "bce": lambda logits, targets, _: quality_bce(logits, targets),
        "quality_focal": lambda logits, targets, _: quality_focal(logits, targets),
    }
)
