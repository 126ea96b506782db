"""The layers YOLO-NAS is made of. Attribute names are the public checkpoints' own: they are part of the file format."""

from __future__ import annotations

from typing import Literal, assert_never

import torch
from torch import Tensor, nn

Activation = Literal["relu", "silu", "hardswish", "identity"]
BlockKind = Literal["qarepvgg", "conv"]

BN_EPS = 1e-3
BN_MOMENTUM = 0.03


def make_activation(kind: Activation) -> nn.Module:
    """Return the activation. ReLU works in place: it and the BatchNorm before it need no input of it kept."""
    match kind:
        case "relu":
            return nn.ReLU(inplace=True)
        case "silu":
            return nn.SiLU()
        case "hardswish":
            return nn.Hardswish()
        case "identity":
            return nn.Identity()
        case _:
            assert_never(kind)


def make_bn(channels: int) -> nn.BatchNorm2d:
    """Return a BatchNorm with the statistics' constants that the whole family uses."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ConvBnAct(nn.Module):
    """Convolution without bias, BatchNorm, activation: [B, in, H, W] -> [B, out, H / stride, W / stride].

    Args:
        in_channels, out_channels: widths.
        kernel: odd kernel size; padding keeps the size.
        stride: 1 or 2.
        activation: what follows the BatchNorm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = make_bn(out_channels)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return act(bn(conv(x)))."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class QARepVGG(nn.Module):
    """Re-parameterisable block that stays quantizable: act(post_bn(bn(conv3x3(x)) + conv1x1(x) [+ x])).

    It becomes one 3x3 convolution for inference (`eyas.models.fuse`). The BatchNorm after the sum keeps the fused
    weights' range narrow (QARepVGG, arXiv 2212.01593, variant S4).

    Args:
        in_channels, out_channels: widths.
        stride: 1 or 2.
        activation: what follows the sum.
        residual: add x itself (needs equal widths and stride 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        activation: Activation = "relu",
        residual: bool = True,
    ) -> None:
        super().__init__()
        assert not residual or (in_channels == out_channels and stride == 1)
        self.stride = stride
        self.residual = residual
        self.branch_3x3 = ConvBnAct(in_channels, out_channels, 3, stride, "identity")
        # Stride 1 on a thinned-out input, not stride 2: the backward of a strided 1x1 convolution with 3 input
        # channels in channels_last corrupts the heap on CPUs (torch 2.13 and 2.15). The result is the same.
        self.branch_1x1 = nn.Conv2d(in_channels, out_channels, 1)
        self.post_bn = make_bn(out_channels)
        # Where the fused kernel goes. Public checkpoints carry it unfused too, so it is in the state dict; it takes no
        # part in training.
        self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, stride, 1).requires_grad_(False)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: [B, in, H, W] -> [B, out, H / stride, W / stride]."""
        total = self.branch_3x3(x)
        # In place: a BatchNorm keeps its input for the backward pass, not its output.
        total += self.branch_1x1(x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride])
        if self.residual:
            total += x
        out: Tensor = self.act(self.post_bn(total))
        return out


def make_block(
    kind: BlockKind, in_channels: int, out_channels: int, stride: int, activation: Activation, residual: bool
) -> nn.Module:
    """Return a 3x3 block of the given kind; `residual` concerns the QARepVGG only."""
    match kind:
        case "qarepvgg":
            return QARepVGG(in_channels, out_channels, stride, activation, residual)
        case "conv":
            return ConvBnAct(in_channels, out_channels, 3, stride, activation)
        case _:
            assert_never(kind)


class Bottleneck(nn.Module):
    """Two 3x3 blocks and a weighted shortcut: alpha * x + cv2(cv1(x)), alpha learned; [B, C, H, W] -> the same."""

    def __init__(self, channels: int, block: BlockKind, activation: Activation) -> None:
        super().__init__()
        self.cv1 = make_block(block, channels, channels, 1, activation, residual=True)
        self.cv2 = make_block(block, channels, channels, 1, activation, residual=True)
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
        hidden: width of each half.
        concat_intermediates: give the last 1x1 convolution every bottleneck's input too, not the chain's end only.
        block: kind of the bottlenecks' 3x3 blocks.
        activation: for all convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, hidden: int, concat_intermediates: bool,
        block: BlockKind, activation: Activation,
    ) -> None:  # fmt: skip
        super().__init__()
        self.concat_intermediates = concat_intermediates
        self.conv1 = ConvBnAct(in_channels, hidden, 1, activation=activation)
        self.conv2 = ConvBnAct(in_channels, hidden, 1, activation=activation)
        parts = 2 + (depth if concat_intermediates else 0)
        self.conv3 = ConvBnAct(hidden * parts, out_channels, 1, activation=activation)
        self.bottlenecks = nn.ModuleList(Bottleneck(hidden, block, activation) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output: [B, in, H, W] -> [B, out, H, W]."""
        chain = [self.conv1(x)]
        for bottleneck in self.bottlenecks:
            chain.append(bottleneck(chain[-1]))
        kept = chain if self.concat_intermediates else chain[-1:]
        out: Tensor = self.conv3(torch.cat([*kept, self.conv2(x)], 1))
        return out


class Spp(nn.Module):
    """Spatial pyramid pooling: max-pools of 5, 9 and 13 beside the input, between two 1x1 convolutions.

    The pools of 9 and 13 are two and three pools of 5 in a row: the same values for a third of the work.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        self.cv1 = ConvBnAct(in_channels, hidden, 1, activation=activation)
        self.cv2 = ConvBnAct(hidden * 4, out_channels, 1, activation=activation)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output: [B, in, H, W] -> [B, out, H, W]."""
        pools = [self.cv1(x)]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        out: Tensor = self.cv2(torch.cat(pools, 1))
        return out
