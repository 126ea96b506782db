"""Convolutions and blocks, and the factory through which every part of a network gets them.

Attribute names are the public checkpoints' own: they are part of the file format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol, assert_never

from torch import Tensor, nn

Activation = Literal["relu", "silu", "hardswish", "identity"]

BN_EPS = 1e-3
BN_MOMENTUM = 0.03
KERNELS = (3, 5)  # sizes of a block's kernel
# The kernel into which SuperGradients fuses a QARepVGG. Public files carry it unfused too, where it means nothing; the
# block has it no more (`eyas.models.public_form`).
PLACEHOLDER = "rbr_reparam"


class MakeConv(Protocol):
    """Makes a convolution whose padding keeps the size (at stride 1)."""

    def __call__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False
    ) -> nn.Conv2d:
        """Return it."""


class MakeNorm(Protocol):
    """Makes what normalizes the channels after a convolution."""

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        """Return it."""


class MakeUpsample(Protocol):
    """Makes a layer that doubles the size."""

    def __call__(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return it: [B, in, H, W] -> [B, out, 2 H, 2 W]."""


@dataclass(frozen=True)
class BlockArgs:
    """What a block is to be: [B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride].

    Attributes:
        kind: a name in `BLOCKS`.
        in_channels, out_channels: widths.
        kernel: 3 or 5.
        stride: 1 or 2.
        activation: after its convolutions.
        residual: add the input itself, in kinds that have such a shortcut; needs equal widths and stride 1.
    """

    kind: str
    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu"
    residual: bool = False


@dataclass(frozen=True)
class Layers:
    """The factory that every part of a network takes: another one makes a network of other layers.

    Attributes:
        conv: bare convolutions, everywhere.
        norm: what follows them.
        block: the blocks of the stages; it is given the factory, of whose parts it makes them.
        upsample: the way up of the neck.
    """

    conv: MakeConv
    norm: MakeNorm
    block: Callable[[BlockArgs, Layers], nn.Module]
    upsample: MakeUpsample


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


def make_conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution; its padding keeps the size."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias)


def make_bn(channels: int) -> nn.BatchNorm2d:
    """Return a BatchNorm with the statistics' constants that the whole family uses."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def make_upsample(in_channels: int, out_channels: int) -> nn.Module:
    """Return a transposed convolution that doubles the size."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


class ConvBnAct(nn.Module):
    """Convolution without bias, BatchNorm, activation: [B, in, H, W] -> [B, out, H / stride, W / stride].

    Args:
        in_channels, out_channels: widths.
        kernel: odd kernel size; padding keeps the size.
        stride: 1 or 2.
        activation: what follows the BatchNorm.
        groups: of the convolution.
        layers: makes the parts.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, activation: Activation = "relu",
        groups: int = 1, layers: Layers | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        layers = layers or LAYERS
        self.conv = layers.conv(in_channels, out_channels, kernel, stride, groups=groups)
        self.bn = layers.norm(out_channels)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return act(bn(conv(x)))."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class QARepVGG(nn.Module):
    """Re-parameterisable block that stays quantizable: act(post_bn(bn(conv3x3(x)) + conv1x1(x) [+ x])).

    It becomes one convolution for inference (`eyas.models.fuse`). The BatchNorm after the sum keeps the fused
    weights' range narrow (QARepVGG, arXiv 2212.01593, variant S4).

    Args:
        in_channels, out_channels: widths.
        stride: 1 or 2.
        activation: what follows the sum.
        residual: add x itself (needs equal widths and stride 1).
        kernel: 3 or 5, of the larger convolution, whose name `branch_3x3` is the file format's.
        layers: makes the parts.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, activation: Activation = "relu",
        residual: bool = True, kernel: int = 3, layers: Layers | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        assert not residual or (in_channels == out_channels and stride == 1)
        layers = layers or LAYERS
        self.stride = stride
        self.residual = residual
        self.branch_3x3 = ConvBnAct(in_channels, out_channels, kernel, stride, "identity", layers=layers)
        # Stride 1 on a thinned-out input, not stride 2: the backward of a strided 1x1 convolution with 3 input
        # channels in channels_last corrupts the heap on CPUs (torch 2.13 and 2.15). The result is the same.
        self.branch_1x1 = layers.conv(in_channels, out_channels, 1, bias=True)
        self.post_bn = layers.norm(out_channels)
        self.act = make_activation(activation)
        # Drawn and let go, as the placeholder once was: a seed goes on giving the weights that it always gave.
        make_conv(in_channels, out_channels, kernel, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: [B, in, H, W] -> [B, out, H / stride, W / stride]."""
        total = self.branch_3x3(x)
        # In place: a BatchNorm keeps its input for the backward pass, not its output.
        total += self.branch_1x1(x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride])
        if self.residual:
            total += x
        out: Tensor = self.act(self.post_bn(total))
        return out

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for part in ("weight", "bias"):
            state_dict.pop(f"{prefix}{PLACEHOLDER}.{part}", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class DepthwiseSeparable(nn.Module):
    """A convolution of each channel for itself, then one of kernel 1 over all (MobileNet, arXiv 1704.04861).

    Args:
        in_channels, out_channels: widths.
        kernel: of the first convolution.
        stride: 1 or 2, of the first convolution.
        activation: after both.
        layers: makes the parts.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, activation: Activation,
        layers: Layers | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.depthwise = ConvBnAct(in_channels, in_channels, kernel, stride, activation, in_channels, layers)
        self.pointwise = ConvBnAct(in_channels, out_channels, 1, activation=activation, layers=layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: [B, in, H, W] -> [B, out, H / stride, W / stride]."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class TrainingOnly(nn.Module):
    """A part that only training needs: elsewhere it gives None, and a fused network doesn't have it.

    Args:
        part: what it is; None once it is dropped.
    """

    def __init__(self, part: nn.Module | None) -> None:
        super().__init__()
        self.part = part

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the part makes of the inputs in training, else None."""
        return self.part(*inputs) if self.training and self.part is not None else None


@dataclass(frozen=True)
class BlockRow:
    """A kind of block.

    Attributes:
        make: makes one.
        kernels: names of the tensor that tells the kind and the size of the kernel, trained or fused: [_, _, k, k].
        outs: names of the tensor whose first dimension is the output's width, trained or fused.
    """

    make: Callable[[BlockArgs, Layers], nn.Module]
    kernels: tuple[str, ...]
    outs: tuple[str, ...]


_QAREPVGG = ("branch_3x3.conv.weight", f"{PLACEHOLDER}.weight")
BLOCKS: Mapping[str, BlockRow] = MappingProxyType({
    "qarepvgg": BlockRow(
        lambda a, layers: QARepVGG(
            a.in_channels, a.out_channels, a.stride, a.activation, a.residual, a.kernel, layers
        ),
        _QAREPVGG, _QAREPVGG,
    ),
    "conv": BlockRow(
        lambda a, layers: ConvBnAct(a.in_channels, a.out_channels, a.kernel, a.stride, a.activation, layers=layers),
        ("conv.weight",), ("conv.weight",),
    ),
    "dwconv": BlockRow(
        lambda a, layers: DepthwiseSeparable(a.in_channels, a.out_channels, a.kernel, a.stride, a.activation, layers),
        ("depthwise.conv.weight",), ("pointwise.conv.weight",),
    ),
})  # fmt: skip


def make_block(args: BlockArgs, layers: Layers) -> nn.Module:
    """Return the block that the row of its kind makes."""
    return BLOCKS[args.kind].make(args, layers)


LAYERS = Layers(make_conv, make_bn, make_block, make_upsample)
