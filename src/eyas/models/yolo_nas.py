"""YOLO-NAS: a spec becomes a network whose state dict has exactly the public checkpoints' names and shapes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from eyas.head_output import HeadOutput
from eyas.models.layers import Activation, ConvBnAct, CspLayer, QARepVGG, Spp, make_block
from eyas.models.spec import StageSpec, YoloNasSpec

__all__ = ["STRIDES", "YoloNas", "YoloNasSpec", "anchors"]

STRIDES = (8, 16, 32)
# Untrained distances: bins that fall like this mean 3 strides, a box of 6, as objects mostly are; equal bins would
# mean a box of 16 strides, which hardly overlaps anything, and task-aligned assignment would start from noise.
BIN_SLOPE = math.log(4 / 3)
PRIOR = 0.01  # what an untrained net says of each class (RetinaNet, arXiv 1708.02002): the first losses stay finite


def _csp(in_channels: int, stage: StageSpec, activation: Activation) -> CspLayer:
    """Return the CSP layer of a stage."""
    return CspLayer(
        in_channels, stage.channels, stage.depth, stage.hidden, stage.concat_intermediates, stage.block, activation
    )


class Stem(nn.Module):
    """The first convolution, RGB to `stem_width` at half the size."""

    def __init__(self, spec: YoloNasSpec) -> None:
        super().__init__()
        self.conv = make_block(spec.stem_block, 3, spec.stem_width, 2, spec.activation, residual=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features: [B, 3, H, W] -> [B, stem_width, H / 2, W / 2]."""
        out: Tensor = self.conv(x)
        return out


class Stage(nn.Module):
    """A backbone stage: a 3x3 block of stride 2, then a CSP layer."""

    def __init__(self, in_channels: int, stage: StageSpec, activation: Activation) -> None:
        super().__init__()
        self.downsample = make_block(stage.block, in_channels, stage.channels, 2, activation, residual=False)
        self.blocks = _csp(stage.channels, stage, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features: [B, in, H, W] -> [B, channels, H / 2, W / 2]."""
        out: Tensor = self.blocks(self.downsample(x))
        return out


class Backbone(nn.Module):
    """Stem, four stages and the spatial pyramid pooling."""

    def __init__(self, spec: YoloNasSpec) -> None:
        super().__init__()
        widths = (spec.stem_width, *(stage.channels for stage in spec.stages))
        self.stem = Stem(spec)
        self.stage1 = Stage(widths[0], spec.stages[0], spec.activation)
        self.stage2 = Stage(widths[1], spec.stages[1], spec.activation)
        self.stage3 = Stage(widths[2], spec.stages[2], spec.activation)
        self.stage4 = Stage(widths[3], spec.stages[3], spec.activation)
        self.context_module = Spp(widths[4], spec.context_hidden, spec.context_width, spec.activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features c2, c3, c4, c5 of strides 4, 8, 16, 32."""
        c2 = self.stage1(self.stem(x))
        c3 = self.stage2(c2)
        c4 = self.stage3(c3)
        return c2, c3, c4, self.context_module(self.stage4(c4))


class UpStage(nn.Module):
    """A neck stage that goes to twice the resolution and also sees the features of four times the resolution."""

    def __init__(self, in_channels: int, skip: int, fine_skip: int, stage: StageSpec, activation: Activation) -> None:
        super().__init__()
        out = stage.channels
        self.reduce_skip1 = ConvBnAct(skip, out, 1, activation=activation)
        self.reduce_skip2 = ConvBnAct(fine_skip, out, 1, activation=activation)
        self.conv = ConvBnAct(in_channels, out, 1, activation=activation)
        self.upsample = nn.ConvTranspose2d(out, out, kernel_size=2, stride=2)
        self.downsample = ConvBnAct(out, out, 3, 2, activation)
        self.reduce_after_concat = ConvBnAct(3 * out, out, 1, activation=activation)
        self.blocks = _csp(out, stage, activation)

    def forward(self, x: Tensor, skip: Tensor, fine_skip: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features for the way down at x's size, features at twice x's size)."""
        inter = self.conv(x)
        fine = self.downsample(self.reduce_skip2(fine_skip))
        x = torch.cat([self.upsample(inter), self.reduce_skip1(skip), fine], 1)
        return inter, self.blocks(self.reduce_after_concat(x))


class DownStage(nn.Module):
    """A neck stage that goes back to half the resolution."""

    def __init__(self, in_channels: int, skip: int, stage: StageSpec, activation: Activation) -> None:
        super().__init__()
        half = stage.channels // 2
        self.conv = ConvBnAct(in_channels, half, 3, 2, activation)
        self.blocks = _csp(half + skip, stage, activation)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the features at half of x's size, which is the skip's."""
        out: Tensor = self.blocks(torch.cat([self.conv(x), skip], 1))
        return out


class Neck(nn.Module):
    """Path aggregation (PANet, arXiv 1803.01534) over c2..c5: twice up, twice down."""

    def __init__(self, spec: YoloNasSpec) -> None:
        super().__init__()
        c2, c3, c4 = (stage.channels for stage in spec.stages[:3])
        up1, up2, down1, down2 = spec.neck
        self.neck1 = UpStage(spec.context_width, c4, c3, up1, spec.activation)
        self.neck2 = UpStage(up1.channels, c3, c2, up2, spec.activation)
        self.neck3 = DownStage(up2.channels, up2.channels, down1, spec.activation)
        self.neck4 = DownStage(down1.channels, up1.channels, down2, spec.activation)

    def forward(self, c2: Tensor, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features p3, p4, p5 of strides 8, 16, 32."""
        inter1, x = self.neck1(c5, c4, c3)
        inter2, p3 = self.neck2(x, c3, c2)
        p4 = self.neck3(p3, inter2)
        return p3, p4, self.neck4(p4, inter1)


class HeadConv(nn.Module):
    """A convolution of the head; the public names have this level (`seq`) in between."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, activation: Activation) -> None:
        super().__init__()
        self.seq = ConvBnAct(in_channels, out_channels, kernel, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, at the same size."""
        out: Tensor = self.seq(x)
        return out


class Head(nn.Module):
    """The decoupled head of one level."""

    def __init__(self, in_channels: int, width: int, num_classes: int, reg_max: int, activation: Activation) -> None:
        super().__init__()
        self.stem = HeadConv(in_channels, width, 1, activation)
        self.cls_convs = nn.Sequential(HeadConv(width, width, 3, activation))
        self.reg_convs = nn.Sequential(HeadConv(width, width, 3, activation))
        self.cls_pred = nn.Conv2d(width, num_classes, 1)
        self.reg_pred = nn.Conv2d(width, 4 * (reg_max + 1), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (class logits [B, H * W, C], box logits [B, H * W, 4 * (reg_max + 1)])."""
        x = self.stem(x)
        class_logits = self.cls_pred(self.cls_convs(x))
        box_logits = self.reg_pred(self.reg_convs(x))
        # The position goes before the channel, which is free of cost in channels_last.
        return class_logits.flatten(2).transpose(1, 2), box_logits.flatten(2).transpose(1, 2)


class Heads(nn.Module):
    """The heads of the three levels; their predictions are put one after another."""

    def __init__(self, spec: YoloNasSpec, num_classes: int) -> None:
        super().__init__()
        widths = [stage.channels for stage in spec.neck[1:]]
        heads = [
            Head(channels, width, num_classes, spec.reg_max, spec.activation)
            for channels, width in zip(widths, spec.head_widths, strict=True)
        ]
        self.head1, self.head2, self.head3 = heads

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> HeadOutput:
        """Return the predictions of all levels, finest first."""
        classes, boxes = zip(self.head1(p3), self.head2(p4), self.head3(p5), strict=True)
        points, strides = anchors([(p.shape[2], p.shape[3]) for p in (p3, p4, p5)], p3.device)
        return HeadOutput(torch.cat(classes, 1).float(), torch.cat(boxes, 1).float(), points, strides)


def anchors(sizes: list[tuple[int, int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the cell centres [A, 2] in stride units and the strides [A, 1] of the three levels.

    Args:
        sizes: (rows, columns) of the feature maps of strides 8, 16 and 32.
        device: where the tensors shall lie.
    """
    points, strides = [], []
    for (rows, columns), stride in zip(sizes, STRIDES, strict=True):
        x = torch.arange(columns, dtype=torch.float32, device=device) + 0.5
        y = torch.arange(rows, dtype=torch.float32, device=device) + 0.5
        grid = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], 2).reshape(-1, 2)
        points.append(grid)
        strides.append(torch.full_like(grid[:, :1], stride))
    return torch.cat(points), torch.cat(strides)


class YoloNas(nn.Module):
    """The network of a spec.

    Args:
        spec: widths, depths and kinds.
        num_classes: how many classes the heads tell apart, at least 1.
    """

    def __init__(self, spec: YoloNasSpec, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.backbone = Backbone(spec)
        self.neck = Neck(spec)
        self.heads = Heads(spec, num_classes)
        initialize(self)

    def forward(self, images: Tensor) -> HeadOutput:
        """Return the raw predictions.

        Args:
            images: float [B, 3, H, W], RGB in 0..1; H and W are multiples of 32.
        """
        output: HeadOutput = self.heads(*self.neck(*self.backbone(images)))
        return output


def initialize(net: nn.Module) -> None:
    """Set the weights of an untrained net: He (arXiv 1502.01852) for convolutions, the prior for the predictions."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in net.modules():
        if isinstance(module, QARepVGG):
            nn.init.zeros_(module.rbr_reparam.weight)
        elif isinstance(module, Head):
            nn.init.normal_(module.cls_pred.weight, std=0.01)
            nn.init.constant_(module.cls_pred.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
            nn.init.zeros_(module.reg_pred.weight)
            with torch.no_grad():
                bins = torch.arange(module.reg_pred.out_channels // 4, dtype=torch.float32)
                module.reg_pred.bias.copy_((-BIN_SLOPE * bins).repeat(4))  # type: ignore[union-attr]
