"""Counting: parameters, multiply-adds, and the table of the named networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.models.fuse import fuse_blocks
from eyas.models.zoo import ALIASES, build

COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def num_parameters(net: nn.Module) -> int:
    """Return the number of parameters, those that are not trained included; BatchNorm's statistics are none."""
    return sum(parameter.numel() for parameter in net.parameters())


def flops(net: nn.Module, height: int, width: int) -> int:
    """Return the floating point operations of one image: twice the multiply-adds of convolutions and linear layers.

    Measured on the net as it is given: fuse it first to know what inference costs.

    Args:
        net: takes float [1, 3, height, width]; its parameters may be on the meta device, which costs no arithmetic.
        height, width: the input's size in pixels.
    """
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, COUNTED)
        # Each input pixel of a transposed convolution meets each weight once, as each output pixel of a plain one does.
        values, width = (
            (inputs[0], module.in_channels)
            if isinstance(module, nn.ConvTranspose2d)
            else (output, module.out_features if isinstance(module, nn.Linear) else module.out_channels)
        )
        macs += module.weight.numel() * (values.numel() // width)

    hooks = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, COUNTED)]
    parameter = next(net.parameters())
    was_training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype))
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    return 2 * macs


def table(num_classes: int = 80, size: int = 640) -> str:
    """Return a table of the named networks: parameters in training and fused, GFLOP of a square input of `size`."""
    lines = [f"{'name':<12} {'short':<6} {'params M':>9} {'fused M':>9} {f'GFLOP at {size}':>14}"]
    for short, name in ALIASES.items():
        with torch.device("meta"):
            net = build(name, num_classes)
        small = fuse_blocks(net)
        lines.append(
            f"{name:<12} {short:<6} {num_parameters(net) / 1e6:>9.3f} {num_parameters(small) / 1e6:>9.3f} "
            f"{flops(small, size, size) / 1e9:>14.1f}"
        )
    return "\n".join(lines)
