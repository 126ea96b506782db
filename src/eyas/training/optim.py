"""The optimizers, a row of `OPTIMIZERS` each; weight decay is on kernels only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from eyas.errors import UserError, row_of
from eyas.training.muon import Muon, is_matrix
from eyas.training.recipe import OptimRecipe

SGD_FACTOR = 5.0  # of Muon: biases and norms, at a rate of 1e-2 where kernels have 2e-3


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
    """Return the recipe's optimizer over the trainable parameters.

    Args:
        net: the network, on its device.
        recipe: its kind, rates and constants.
        others: parameters outside the network, such as a criterion's.
        fused: it may be captured in a CUDA graph, AdamW as one kernel for a group of parameters; else a few for each
            operation on all of them, which give the same numbers to the last bits.

    A state that the one way of computing has saved can be loaded into the other.

    Raises:
        UserError: there is no such optimizer.
    """
    make = row_of(OPTIMIZERS, recipe.optimizer, "There is no optimizer", "optim.optimizer")
    optimizer = make(net, recipe, list(others), fused)
    if recipe.backbone_factor != 1.0:
        slow_backbone(optimizer, net, recipe.backbone_factor)
    optimizer.register_load_state_dict_pre_hook(_keep_modes)
    return optimizer


def slow_backbone(optimizer: torch.optim.Optimizer, net: nn.Module, factor: float) -> None:
    """Put the backbone's parameters into groups of their own, after the others, with so many times their rate.

    Raises:
        UserError: the network has no part of that name.
    """
    if not isinstance(backbone := getattr(net, "backbone", None), nn.Module):
        raise UserError(
            f"{type(net).__name__} has no backbone.", where="optim.backbone_factor", fix="--optim.backbone_factor 1"
        )
    inside = set(backbone.parameters())
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if parameter in inside]
        if own:
            group["params"] = [parameter for parameter in group["params"] if parameter not in inside]
            rate = group["lr"] * factor
            optimizer.add_param_group({**group, "params": own, "lr": rate})


def _adamw(net: nn.Module, recipe: OptimRecipe, others: list[nn.Parameter], fused: bool) -> torch.optim.Optimizer:
    modes = {"fused": True, "capturable": True} if fused else {"foreach": True}
    groups = parameter_groups(net, recipe.weight_decay, others)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), **modes)


def _muon(net: nn.Module, recipe: OptimRecipe, others: list[nn.Parameter], fused: bool) -> torch.optim.Optimizer:
    """Return Muon for kernels, SGD at `SGD_FACTOR` times the rate for the rest."""
    trainable = [p for p in net.parameters() if p.requires_grad]
    kernels = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "orthogonal": True}
    rest = {"lr": SGD_FACTOR * recipe.lr, "weight_decay": 0.0}
    return Muon(
        [
            {"params": [p for p in trainable if is_matrix(p)], **kernels},
            {"params": [*(p for p in trainable if not is_matrix(p)), *others], **rest},
        ],
        fused=fused,
    )


Make = Callable[[nn.Module, OptimRecipe, list[nn.Parameter], bool], torch.optim.Optimizer]

# The recipe's `optim.optimizer` -> what makes one of the network, the recipe, the parameters outside the network, and
# whether it may be captured.
OPTIMIZERS: Mapping[str, Make] = MappingProxyType({"adamw": _adamw, "muon": _muon})


def _keep_modes(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    own, saved = optimizer.param_groups, state["param_groups"]
    modes = [{name: group[name] for name in ("fused", "foreach", "capturable")} for group in own]
    return {**state, "param_groups": [{**group, **mode} for group, mode in zip(saved, modes, strict=True)]}
