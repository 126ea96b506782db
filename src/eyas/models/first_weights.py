"""The first weights of a network's convolutions."""

from __future__ import annotations

import torch
from torch import nn

from eyas.models.layers import QARepVGG


def initialize(net: nn.Module) -> None:
    """Set the convolutions' weights as He has it (arXiv 1502.01852), for ReLU."""
    # After a block's two kernels a third is drawn and let go, that of the placeholder which the block once had: a seed
    # goes on giving the weights that it always gave.
    blocks = {block.branch_1x1: block for block in net.modules() if isinstance(block, QARepVGG)}
    for module in net.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.groups > 1:  # which PyTorch does not look at: each output has so many times fewer gradients
            with torch.no_grad():
                module.weight *= module.groups**0.5
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        if module in blocks:
            nn.init.normal_(torch.empty_like(blocks[module].branch_3x3.conv.weight))
