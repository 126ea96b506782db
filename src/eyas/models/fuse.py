"""Folding what training needs and inference does not: BatchNorms and QARepVGG blocks into plain convolutions.

Parts that only training needs are dropped.

Both functions return a new network in eval mode with the same outputs (within 1e-4 relative in float32); the one that
was given stays as it is. A fused network is not trained further.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from eyas.models.layers import ConvBnAct, QARepVGG, TrainingOnly
from eyas.models.surgery import Rules, replace_modules

Net = TypeVar("Net", bound=nn.Module)


class FusedConvAct(nn.Module):
    """A convolution with bias and its activation: what a ConvBnAct becomes; the weights keep the name `conv`."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return act(conv(x))."""
        out: Tensor = self.act(self.conv(x))
        return out


class FusedQARepVGG(nn.Module):
    """A convolution with bias and its activation: what a QARepVGG becomes; its weights are named `rbr_reparam`."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.rbr_reparam = conv
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return act(rbr_reparam(x))."""
        out: Tensor = self.act(self.rbr_reparam(x))
        return out


def fuse_blocks(net: Net) -> Net:
    """Return a copy with every QARepVGG as one convolution; plain convolutions keep their BatchNorm."""
    return fused_where(net, lambda _, part: not isinstance(part, ConvBnAct))


def fused(net: Net) -> Net:
    """Return a copy without any BatchNorm: every one is folded into its convolution. It may be block-fused already."""
    return fused_where(net, lambda *_: True)


def fold_bn(weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the (weight, bias) of the convolution that does what the given one and `bn` in eval mode do together.

    Args:
        weight: [out, in, k, k].
        bias: [out], or None for zero.
        bn: over `out` channels.
    """
    assert bn.running_mean is not None and bn.running_var is not None
    # In float64, so that the folded weights are as exact as float32 can hold.
    factor = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    shift = -bn.running_mean.double() if bias is None else bias.double() - bn.running_mean.double()
    return weight.double() * factor.reshape(-1, 1, 1, 1), shift * factor + bn.bias.double()


def fused_where(net: Net, wanted: Callable[[str, nn.Module], bool]) -> Net:
    """Return a copy in eval mode of which just some parts are fused.

    Args:
        net: the network, as it is trained or fused in part already.
        wanted: says of each QARepVGG, ConvBnAct and TrainingOnly, by its name and itself, whether it is to be fused.
    """
    with torch.no_grad():
        small = replace_modules(net, RULES, wanted)
    return cast(Net, small.eval().requires_grad_(False))


def _fuse_block(block: QARepVGG) -> FusedQARepVGG:
    """Return the block as one convolution: the branches' kernels added, then the BatchNorm after the sum folded in."""
    kernel, bias = fold_bn(block.branch_3x3.conv.weight, None, block.branch_3x3.bn)
    assert block.branch_1x1.bias is not None
    point = block.branch_1x1.weight.double()
    if block.residual:
        point = point + torch.eye(len(point), dtype=point.dtype, device=point.device)[:, :, None, None]
    middle = kernel.shape[-1] // 2
    kernel = kernel + functional.pad(point, (middle,) * 4)
    return FusedQARepVGG(
        _conv_like(block.branch_3x3.conv, *fold_bn(kernel, bias + block.branch_1x1.bias.double(), block.post_bn)),
        block.act,
    )


def _fuse_conv(layer: ConvBnAct) -> FusedConvAct:
    return FusedConvAct(_conv_like(layer.conv, *fold_bn(layer.conv.weight, None, layer.bn)), layer.act)


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a convolution with the geometry, device and type of `conv`, and a bias."""
    out = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], int(conv.padding[0]),
        groups=conv.groups, device="meta",
    )  # fmt: skip
    out.weight = nn.Parameter(weight.to(conv.weight))
    out.bias = nn.Parameter(bias.to(conv.weight))
    return out


RULES: Rules = MappingProxyType(
    {QARepVGG: _fuse_block, ConvBnAct: _fuse_conv, TrainingOnly: lambda _: TrainingOnly(None)}
)
