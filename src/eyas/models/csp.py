"""What stages are made of: the cross-stage partial layer with its bottlenecks, and the spatial pyramid pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.models.layers import LAYERS, Activation, BlockArgs, ConvBnAct, Layers
from eyas.models.widths import LayerWidths, Layout, Parts, plain


class Bottleneck(nn.Module):
    """Two blocks and a weighted shortcut: alpha * x + cv2(cv1(x)), alpha learned; [B, C, H, W] -> the same."""

    def __init__(self, block: BlockArgs, layers: Layers = LAYERS) -> None:
        super().__init__()
        self.cv1 = layers.block(block, layers)
        self.cv2 = layers.block(block, layers)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return alpha * x + cv2(cv1(x))."""
        out: Tensor = self.alpha * x + self.cv2(self.cv1(x))
        return out


class CspLayer(nn.Module):
    """Cross-stage partial layer (CSPNet, arXiv 1911.11929): half of the work is a chain of bottlenecks.

    Args:
        in_channels, out_channels: widths outside.
        depth: number of bottlenecks.
        concat_intermediates: give the last 1x1 convolution every bottleneck's input too, not the chain's end only.
        block: the bottlenecks' blocks, as wide inside as outside: the width of each half of the work.
        layers: makes the parts.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, concat_intermediates: bool, block: BlockArgs,
        layers: Layers = LAYERS,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden, activation = block.in_channels, block.activation
        self.concat_intermediates = concat_intermediates
        self.conv1 = ConvBnAct(in_channels, hidden, 1, activation=activation, layers=layers)
        self.conv2 = ConvBnAct(in_channels, hidden, 1, activation=activation, layers=layers)
        parts = 2 + (depth if concat_intermediates else 0)
        self.conv3 = ConvBnAct(hidden * parts, out_channels, 1, activation=activation, layers=layers)
        self.bottlenecks = nn.ModuleList(Bottleneck(block, layers) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output: [B, in, H, W] -> [B, out, H, W]."""
        chain = [self.conv1(x)]
        for bottleneck in self.bottlenecks:
            chain.append(bottleneck(chain[-1]))
        kept = chain if self.concat_intermediates else chain[-1:]
        out: Tensor = self.conv3(torch.cat([*kept, self.conv2(x)], 1))
        return out


def csp_widths(ins: int | Parts, out: int, depth: int, concat_intermediates: bool, hidden: int, kernel: int) -> Layout:
    """Return the channels of a `CspLayer`'s layers; `ins` are its input's."""
    kept = [f"after {count}" for count in range(depth + 1)] if concat_intermediates else ["the end"]
    layout = {"conv1": plain(ins, hidden), "conv2": plain(ins, hidden)}
    layout["conv3"] = plain(dict.fromkeys([*kept, "conv2"], hidden), out)
    for number in range(depth):
        name = f"bottlenecks.{number}"
        layout[name] = LayerWidths({}, None)  # its alpha
        layout |= dict.fromkeys((f"{name}.cv1", f"{name}.cv2"), plain(hidden, hidden, kernel))
    return layout


class Spp(nn.Module):
    """Spatial pyramid pooling: max-pools of 5, 9 and 13 beside the input, between two 1x1 convolutions.

    The pools of 9 and 13 are two and three pools of 5 in a row: the same values for a third of the work.
    """

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, activation: Activation, layers: Layers = LAYERS
    ) -> None:
        super().__init__()
        self.cv1 = ConvBnAct(in_channels, hidden, 1, activation=activation, layers=layers)
        self.cv2 = ConvBnAct(hidden * 4, out_channels, 1, activation=activation, layers=layers)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output: [B, in, H, W] -> [B, out, H, W]."""
        pools = [self.cv1(x)]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        out: Tensor = self.cv2(torch.cat(pools, 1))
        return out


def spp_widths(ins: int, hidden: int, out: int) -> Layout:
    """Return the channels of an `Spp`'s layers."""
    pools = dict.fromkeys(("x", "pool of 5", "pool of 9", "pool of 13"), hidden)
    return {"cv1": plain(ins, hidden), "cv2": plain(pools, out)}
