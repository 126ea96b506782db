"""The optimizer: AdamW, with weight decay on kernels only."""

from __future__ import annotations

import torch
from torch import nn

from eyas.training.recipe import OptimRecipe


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return the trainable parameters in two groups: kernels, which decay, and biases, norms, scalars, which don't."""
    trainable = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(net: nn.Module, recipe: OptimRecipe) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters (Loshchilov and Hutter, arXiv 1711.05101)."""
    return torch.optim.AdamW(
        parameter_groups(net, recipe.weight_decay), lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), foreach=True
    )
