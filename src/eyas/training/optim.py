"""The optimizer: AdamW, with weight decay on kernels only."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from eyas.training.recipe import OptimRecipe


def parameter_groups(
    net: nn.Module, weight_decay: float, others: Iterable[nn.Parameter] = ()
) -> list[dict[str, object]]:
    """Return the trainable parameters in two groups: kernels, which decay, and biases, norms, scalars, which don't.

    Args:
        net: the network.
        weight_decay: of the kernels.
        others: parameters outside the network, such as a criterion's; they don't decay.
    """
    trainable = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [*(p for p in trainable if p.ndim <= 1), *others], "weight_decay": 0.0},
    ]


def make_optimizer(net: nn.Module, recipe: OptimRecipe, others: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters (Loshchilov and Hutter, arXiv 1711.05101) and those of `others`."""
    groups = parameter_groups(net, recipe.weight_decay, others)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), foreach=True)
