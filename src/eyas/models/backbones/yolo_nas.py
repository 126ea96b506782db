"""YOLO-NAS's own backbone: a stem, four stages of cross-stage partial layers, and spatial pyramid pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from eyas.models.csp import CspLayer, Spp, csp_widths, spp_widths
from eyas.models.layers import LAYERS, Activation, BlockArgs, Layers
from eyas.models.widths import Layout, Parts, below, plain

if TYPE_CHECKING:
    from eyas.models.spec import StageSpec, YoloNasSpec


def csp_layer(in_channels: int, stage: StageSpec, activation: Activation, layers: Layers) -> CspLayer:
    """Return the CSP layer of a stage."""
    block = BlockArgs(stage.block, stage.hidden, stage.hidden, stage.kernel, 1, activation, residual=True)
    return CspLayer(in_channels, stage.channels, stage.depth, stage.concat_intermediates, block, layers)


def stage_widths(ins: int | Parts, stage: StageSpec) -> Layout:
    """Return the channels of the layers of `csp_layer`."""
    return csp_widths(ins, stage.channels, stage.depth, stage.concat_intermediates, stage.hidden, stage.kernel)


class Stem(nn.Module):
    """The first convolution, RGB to `stem_width` at half the size."""

    def __init__(self, spec: YoloNasSpec, layers: Layers = LAYERS) -> None:
        super().__init__()
        block = BlockArgs(spec.stem_block, 3, spec.stem_width, spec.stem_kernel, 2, spec.activation)
        self.conv = layers.block(block, layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features: [B, 3, H, W] -> [B, stem_width, H / 2, W / 2]."""
        out: Tensor = self.conv(x)
        return out


class Stage(nn.Module):
    """A backbone stage: a block of stride 2, then a CSP layer."""

    def __init__(self, in_channels: int, stage: StageSpec, activation: Activation, layers: Layers) -> None:
        super().__init__()
        down = BlockArgs(stage.block, in_channels, stage.channels, stage.kernel, 2, activation)
        self.downsample = layers.block(down, layers)
        self.blocks = csp_layer(stage.channels, stage, activation, layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features: [B, in, H, W] -> [B, channels, H / 2, W / 2]."""
        out: Tensor = self.blocks(self.downsample(x))
        return out


class Backbone(nn.Module):
    """Stem, four stages and the spatial pyramid pooling."""

    def __init__(self, spec: YoloNasSpec, layers: Layers = LAYERS) -> None:
        super().__init__()
        widths = (spec.stem_width, *(stage.channels for stage in spec.stages))
        self.stem = Stem(spec, layers)
        self.stage1 = Stage(widths[0], spec.stages[0], spec.activation, layers)
        self.stage2 = Stage(widths[1], spec.stages[1], spec.activation, layers)
        self.stage3 = Stage(widths[2], spec.stages[2], spec.activation, layers)
        self.stage4 = Stage(widths[3], spec.stages[3], spec.activation, layers)
        self.context_module = Spp(widths[4], spec.context_hidden, spec.context_width, spec.activation, layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features c2, c3, c4, c5 of strides 4, 8, 16, 32."""
        c2 = self.stage1(self.stem(x))
        c3 = self.stage2(c2)
        c4 = self.stage3(c3)
        return c2, c3, c4, self.context_module(self.stage4(c4))


def channels(spec: YoloNasSpec) -> tuple[int, int, int, int]:
    """Return the widths of c2, c3, c4 and c5."""
    c2, c3, c4 = (stage.channels for stage in spec.stages[:3])
    return c2, c3, c4, spec.context_width


def widths(spec: YoloNasSpec) -> Layout:
    """Return the channels of every layer."""
    layout, before = {"stem.conv": plain(3, spec.stem_width, spec.stem_kernel)}, spec.stem_width
    for number, stage in enumerate(spec.stages, 1):
        layout[f"stage{number}.downsample"] = plain(before, stage.channels, stage.kernel)
        layout |= below(f"stage{number}.blocks", stage_widths(stage.channels, stage))
        before = stage.channels
    return layout | below("context_module", spp_widths(before, spec.context_hidden, spec.context_width))
