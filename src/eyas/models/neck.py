"""The neck: path aggregation over the backbone's features, as YOLO-NAS has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eyas.models.backbones.yolo_nas import csp_layer, stage_widths
from eyas.models.layers import LAYERS, Activation, ConvBnAct, Layers
from eyas.models.widths import Layout, below, plain

if TYPE_CHECKING:
    from eyas.models.spec import StageSpec, YoloNasSpec


class UpStage(nn.Module):
    """A neck stage that goes to twice the resolution and also sees the features of four times the resolution."""

    def __init__(
        self, in_channels: int, skip: int, fine_skip: int, stage: StageSpec, activation: Activation, layers: Layers
    ) -> None:
        super().__init__()
        out = stage.channels
        self.reduce_skip1 = ConvBnAct(skip, out, 1, activation=activation, layers=layers)
        self.reduce_skip2 = ConvBnAct(fine_skip, out, 1, activation=activation, layers=layers)
        self.conv = ConvBnAct(in_channels, out, 1, activation=activation, layers=layers)
        self.upsample = layers.upsample(out, out)
        self.downsample = ConvBnAct(out, out, 3, 2, activation, layers=layers)
        self.reduce_after_concat = ConvBnAct(3 * out, out, 1, activation=activation, layers=layers)
        self.blocks = csp_layer(out, stage, activation, layers)

    def forward(self, x: Tensor, skip: Tensor, fine_skip: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features for the way down at x's size, features at twice x's size)."""
        inter = self.conv(x)
        fine = self.downsample(self.reduce_skip2(fine_skip))
        x = torch.cat([self.upsample(inter), self.reduce_skip1(skip), fine], 1)
        return inter, self.blocks(self.reduce_after_concat(x))


class DownStage(nn.Module):
    """A neck stage that goes back to half the resolution."""

    def __init__(self, in_channels: int, skip: int, stage: StageSpec, activation: Activation, layers: Layers) -> None:
        super().__init__()
        half = stage.channels // 2
        self.conv = ConvBnAct(in_channels, half, 3, 2, activation, layers=layers)
        self.blocks = csp_layer(half + skip, stage, activation, layers)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the features at half of x's size, which is the skip's."""
        out: Tensor = self.blocks(torch.cat([self.conv(x), skip], 1))
        return out


class Neck(nn.Module):
    """Path aggregation (PANet, arXiv 1803.01534) over c2..c5: twice up, twice down.

    Args:
        spec: its `neck` has the four stages.
        channels: the widths of c2, c3, c4 and c5.
        layers: makes the parts.
    """

    def __init__(self, spec: YoloNasSpec, channels: tuple[int, int, int, int], layers: Layers = LAYERS) -> None:
        super().__init__()
        c2, c3, c4, c5 = channels
        up1, up2, down1, down2 = spec.neck
        self.neck1 = UpStage(c5, c4, c3, up1, spec.activation, layers)
        self.neck2 = UpStage(up1.channels, c3, c2, up2, spec.activation, layers)
        self.neck3 = DownStage(up2.channels, up2.channels, down1, spec.activation, layers)
        self.neck4 = DownStage(down1.channels, up1.channels, down2, spec.activation, layers)

    def forward(self, c2: Tensor, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features p3, p4, p5 of strides 8, 16, 32."""
        inter1, x = self.neck1(c5, c4, c3)
        inter2, p3 = self.neck2(x, c3, c2)
        p4 = self.neck3(p3, inter2)
        return p3, p4, self.neck4(p4, inter1)


def neck_widths(spec: YoloNasSpec, channels: tuple[int, int, int, int]) -> Layout:
    """Return the channels of every layer of a `Neck`."""
    c2, c3, c4, c5 = channels
    up1, up2, down1, down2 = spec.neck
    return {
        **below("neck1", _up_widths(c5, c4, c3, up1)),
        **below("neck2", _up_widths(up1.channels, c3, c2, up2)),
        **below("neck3", _down_widths(up2.channels, up2.channels, down1)),
        **below("neck4", _down_widths(down1.channels, up1.channels, down2)),
    }


def _up_widths(ins: int, skip: int, fine_skip: int, stage: StageSpec) -> Layout:
    out = stage.channels
    return {
        "reduce_skip1": plain(skip, out),
        "reduce_skip2": plain(fine_skip, out),
        "conv": plain(ins, out),
        "upsample": plain(out, out),
        "downsample": plain(out, out),
        "reduce_after_concat": plain({"up": out, "skip": out, "fine skip": out}, out),
        **below("blocks", stage_widths(out, stage)),
    }


def _down_widths(ins: int, skip: int, stage: StageSpec) -> Layout:
    half = stage.channels // 2
    return {"conv": plain(ins, half), **below("blocks", stage_widths({"down": half, "skip": skip}, stage))}
