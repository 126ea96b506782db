"""Folding what training needs and inference does not: BatchNorms into convolutions, QARepVGG blocks into one 3x3.

Both functions return a new network in eval mode with the same outputs (within 1e-4 relative in float32); the one that
was given stays as it is. A fused network is not trained further.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from eyas.models.layers import ConvBnAct, QARepVGG

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
    """A 3x3 convolution with bias and its activation: what a QARepVGG becomes; its weights are named `rbr_reparam`."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.rbr_reparam = conv
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return act(rbr_reparam(x))."""
        out: Tensor = self.act(self.rbr_reparam(x))
        return out


def fuse_blocks(net: Net) -> Net:
    """Return a copy with every QARepVGG as one 3x3 convolution; plain convolutions keep their BatchNorm."""
    return fused_where(net, lambda _, part: isinstance(part, QARepVGG))


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
        wanted: says of each QARepVGG and ConvBnAct, by its name and itself, whether it is to be fused.
    """
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        _replace_children(net, "", wanted)
    return net.requires_grad_(False)


def _replace_children(module: nn.Module, above: str, wanted: Callable[[str, nn.Module], bool]) -> None:
    """Replace the wanted descendants of `module`, whose own name ends in a dot or is empty, in place."""
    for name, child in module.named_children():
        full = above + name
        if isinstance(child, QARepVGG):
            if wanted(full, child):
                module.register_module(name, _fuse_block(child))
        elif isinstance(child, ConvBnAct):
            if wanted(full, child):
                module.register_module(name, _fuse_conv(child))
        else:
            _replace_children(child, f"{full}.", wanted)


def _fuse_block(block: QARepVGG) -> FusedQARepVGG:
    """Return the block as one convolution: the branches' kernels added, then the BatchNorm after the sum folded in."""
    kernel, bias = fold_bn(block.branch_3x3.conv.weight, None, block.branch_3x3.bn)
    assert block.branch_1x1.bias is not None
    point = block.branch_1x1.weight.double()
    if block.residual:
        point = point + torch.eye(len(point), dtype=point.dtype, device=point.device)[:, :, None, None]
    kernel = kernel + functional.pad(point, (1, 1, 1, 1))
    return FusedQARepVGG(
        _conv_like(block.branch_3x3.conv, *fold_bn(kernel, bias + block.branch_1x1.bias.double(), block.post_bn)),
        block.act,
    )


def _fuse_conv(layer: ConvBnAct) -> FusedConvAct:
    """Return the layer without its BatchNorm."""
    return FusedConvAct(_conv_like(layer.conv, *fold_bn(layer.conv.weight, None, layer.bn)), layer.act)


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a convolution with the geometry, device and type of `conv`, and a bias."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    out = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")
    out.weight = nn.Parameter(weight.to(conv.weight))
    out.bias = nn.Parameter(bias.to(conv.weight))
    return out
