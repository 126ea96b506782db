"""Weights as files hold them, which is the public checkpoints' form, and as networks hold them.

SuperGradients keeps in each QARepVGG, beside its branches, the convolution into which they are fused later
(`rbr_reparam`). Until then it means nothing, so networks here don't have it: it is dropped where weights are read, and
zeros stand in for it where they are written, which every reader of the public form takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from eyas.models.layers import BN_EPS, PLACEHOLDER, QARepVGG

State = Mapping[str, Tensor]

BRANCH = ".branch_3x3.conv.weight"  # of a block that is not fused


def to_public_state(state: State) -> dict[str, Tensor]:
    """Return the weights with zeros in the place of the kernel that each block would be fused into.

    Args:
        state: weights under YOLO-NAS's names; fused ones stay as they are.
    """
    public = dict(state)
    for name, kernel in state.items():
        if name.endswith(BRANCH):
            block = name.removesuffix(BRANCH)
            public.setdefault(f"{block}.{PLACEHOLDER}.weight", torch.zeros_like(kernel))
            public.setdefault(f"{block}.{PLACEHOLDER}.bias", torch.zeros_like(kernel[:, 0, 0, 0]))
    return public


def from_public_state(state: State) -> dict[str, Tensor]:
    """Return the weights without what blocks that are not fused have in the place of a fused kernel.

    Args:
        state: weights under the network's names, or with a name before all of them; fused ones stay as they are.
    """
    blocks = {name.removesuffix(BRANCH) for name in state if name.endswith(BRANCH)}
    dropped = {f"{block}.{PLACEHOLDER}.{part}" for block in blocks for part in ("weight", "bias")}
    return {name: value for name, value in state.items() if name not in dropped}


def unfold_blocks(state: State, net: nn.Module) -> dict[str, Tensor]:
    """Return the weights with partially fused blocks as blocks that can be trained, of the same answers.

    A partially fused block is one convolution and the BatchNorm after it. The same comes from a whole block whose large
    branch has that kernel and a BatchNorm that changes nothing, while its 1x1 takes away what the shortcut adds.
    Trained on, that is the very function too: the second BatchNorm undoes whatever the first one scales.

    Args:
        state: weights under the network's names; blocks of any form.
        net: a network as it is trained, of the weights' spec.
    """
    whole = dict(state)
    for name, block in net.named_modules():
        if not isinstance(block, QARepVGG) or f"{name}{BRANCH}" in state:
            continue
        if f"{name}.post_bn.weight" not in state or f"{name}.{PLACEHOLDER}.weight" not in state:
            continue
        kernel, bias = (whole.pop(f"{name}.{PLACEHOLDER}.{part}") for part in ("weight", "bias"))
        # Only what is there already and fits is unfolded; the check of names and shapes tells the rest.
        point = torch.zeros_like(kernel[:, :, :1, :1])
        if block.residual and point.shape[0] == point.shape[1]:
            point[:, :, 0, 0] = -torch.eye(len(point), dtype=point.dtype)
        ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
        norm = {"weight": ones * (1 + BN_EPS) ** 0.5, "bias": zeros, "running_mean": zeros, "running_var": ones}
        whole |= {f"{name}{BRANCH}": kernel, f"{name}.branch_1x1.weight": point}
        whole |= {f"{name}.branch_3x3.bn.{part}": value.clone() for part, value in norm.items()}
        whole[f"{name}.branch_3x3.bn.num_batches_tracked"] = torch.tensor(0)
        whole[f"{name}.branch_1x1.bias"] = bias
    return whole
