"""The optimizer: AdamW, with weight decay on kernels only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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


def make_optimizer(
    net: nn.Module, recipe: OptimRecipe, others: Iterable[nn.Parameter] = (), *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters (Loshchilov and Hutter, arXiv 1711.05101).

    Args:
        net: the network, on its device.
        recipe: rates and constants.
        others: parameters outside the network, such as a criterion's.
        fused: one kernel for a group of parameters, which may be captured in a CUDA graph; else a few for each
            operation on all of them, which give the same numbers to the last bits.

    A state that the one kind has saved can be loaded into the other.
    """
    modes = {"fused": True, "capturable": True} if fused else {"foreach": True}
    groups = parameter_groups(net, recipe.weight_decay, others)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), **modes)
    optimizer.register_load_state_dict_pre_hook(_keep_modes)
    return optimizer


def _keep_modes(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return a saved state with the optimizer's own ways of computing in the place of those that it was saved with."""
    own, saved = optimizer.param_groups, state["param_groups"]
    modes = [{name: group[name] for name in ("fused", "foreach", "capturable")} for group in own]
    return {**state, "param_groups": [{**group, **mode} for group, mode in zip(saved, modes, strict=True)]}
