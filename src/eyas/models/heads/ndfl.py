"""YOLO-NAS's own head: dense predictions, distances as distributions over bins, to be followed by suppression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eyas.head_output import HeadOutput
from eyas.models.layers import Activation, ConvBnAct, Layers
from eyas.models.widths import LayerWidths, Layout, below, plain
from eyas.tensor_boxes import boxes_from_bins

if TYPE_CHECKING:
    from eyas.models.spec import YoloNasSpec
    from eyas.types import Vocabulary

STRIDES = (8, 16, 32)
# Untrained distances: bins that fall like this mean 3 strides, a box of 6, as objects mostly are; equal bins would
# mean a box of 16 strides, which hardly overlaps anything, and task-aligned assignment would start from noise.
BIN_SLOPE = math.log(4 / 3)
PRIOR = 0.01  # what an untrained net says of each class (RetinaNet, arXiv 1708.02002): the first losses stay finite


class HeadConv(nn.Module):
    """A convolution of the head; the public names have this level (`seq`) in between."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, activation: Activation, layers: Layers
    ) -> None:
        super().__init__()
        self.seq = ConvBnAct(in_channels, out_channels, kernel, activation=activation, layers=layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, at the same size."""
        out: Tensor = self.seq(x)
        return out


class Head(nn.Module):
    """The decoupled head of one level."""

    def __init__(
        self, in_channels: int, width: int, num_classes: int, reg_max: int, activation: Activation, layers: Layers
    ) -> None:
        super().__init__()
        self.stem = HeadConv(in_channels, width, 1, activation, layers)
        self.cls_convs = nn.Sequential(HeadConv(width, width, 3, activation, layers))
        self.reg_convs = nn.Sequential(HeadConv(width, width, 3, activation, layers))
        self.cls_pred = layers.conv(width, num_classes, 1, bias=True)
        self.reg_pred = layers.conv(width, 4 * (reg_max + 1), 1, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (class logits [B, H * W, C], box logits [B, H * W, 4 * (reg_max + 1)])."""
        x = self.stem(x)
        class_logits = self.cls_pred(self.cls_convs(x))
        box_logits = self.reg_pred(self.reg_convs(x))
        # The position goes before the channel, which is free of cost in channels_last.
        return class_logits.flatten(2).transpose(1, 2), box_logits.flatten(2).transpose(1, 2)


class Heads(nn.Module):
    """The heads of the three levels; their predictions are put one after another.

    Args:
        spec: widths, bins, activation.
        channels: the widths of p3, p4 and p5.
        vocabulary: the classes.
        layers: makes the parts.
        reg_max: the last bin of a side, 0 for one value instead of bins; the spec's if None.
    """

    def __init__(
        self, spec: YoloNasSpec, channels: tuple[int, int, int], vocabulary: Vocabulary, layers: Layers,
        reg_max: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        last = spec.reg_max if reg_max is None else reg_max
        heads = [
            Head(inside, width, len(vocabulary), last, spec.activation, layers)
            for inside, width in zip(channels, spec.head_widths, strict=True)
        ]
        self.head1, self.head2, self.head3 = heads

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> HeadOutput:
        """Return the predictions of all levels, finest first."""
        classes, boxes = zip(self.head1(p3), self.head2(p4), self.head3(p5), strict=True)
        points, strides = anchors([(p.shape[2], p.shape[3]) for p in (p3, p4, p5)], p3.device)
        return HeadOutput(torch.cat(classes, 1).float(), torch.cat(boxes, 1).float(), points, strides)


def widths(spec: YoloNasSpec, channels: tuple[int, int, int], reg_max: int | None = None) -> Layout:
    """Return the channels of every layer of the heads."""
    layout: Layout = {}
    last = spec.reg_max if reg_max is None else reg_max
    for number, (inside, width) in enumerate(zip(channels, spec.head_widths, strict=True), 1):
        layout |= below(f"head{number}", level_widths(inside, width, last))
    return layout


def level_widths(inside: int, width: int, reg_max: int) -> Layout:
    """Return the channels of every layer of a `Head`."""
    bins = dict.fromkeys(("left", "top", "right", "bottom"), reg_max + 1)
    return {
        "stem": plain(inside, width),
        "cls_convs.0": plain(width, width),
        "reg_convs.0": plain(width, width),
        "cls_pred": LayerWidths({"x": width}, None),
        "reg_pred": LayerWidths({"x": width}, bins),
    }


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


def initialize(heads: nn.Module) -> None:
    """Set what untrained heads predict: the prior of each class, and boxes of six strides."""
    for module in heads.modules():
        if isinstance(module, Head):
            nn.init.normal_(module.cls_pred.weight, std=0.01)
            nn.init.constant_(module.cls_pred.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
            nn.init.zeros_(module.reg_pred.weight)
            with torch.no_grad():
                bins = torch.arange(module.reg_pred.out_channels // 4, dtype=torch.float32)
                module.reg_pred.bias.copy_((-BIN_SLOPE * bins).repeat(4))  # type: ignore[union-attr]


def decode(output: HeadOutput, candidates: int) -> tuple[Tensor, Tensor]:
    """Return the anchors with the best scores, best first.

    Args:
        output: what the heads returned.
        candidates: how many anchors to keep an image.

    Returns:
        boxes float32 [B, K, 4], xyxy in network pixels, and scores float32 [B, K, C] in 0..1, with K the smaller of
        `candidates` and the number of anchors.
    """
    return select(output, candidates, _boxes)


def select(
    output: HeadOutput, candidates: int, boxes_of: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what `decode` does, of box logits that mean what `boxes_of` says.

    Args:
        output: what the heads returned.
        candidates: how many anchors to keep an image.
        boxes_of: box logits [..., D], points [..., 2] and strides [..., 1] -> boxes [..., 4] in network pixels.
    """
    kept = _num_kept(output.anchor_points, candidates)
    # Only what is kept is decoded: the softmax over the bins of all anchors would cost more than the selection.
    best = output.class_logits.amax(-1).topk(kept, dim=1).indices
    points, strides = output.anchor_points[best], output.strides[best]
    boxes = boxes_of(_rows(output.box_logits, best), points, strides)
    return boxes, _rows(output.class_logits, best).sigmoid()


def decode_boxes(output: HeadOutput) -> Tensor:
    """Return the box of every anchor: float32 [B, A, 4], xyxy in network pixels, not clipped."""
    return _boxes(output.box_logits, output.anchor_points, output.strides)


def _boxes(box_logits: Tensor, anchor_points: Tensor, strides: Tensor) -> Tensor:
    """Return the boxes [..., 4] in network pixels of logits [..., 4 * (reg_max + 1)] at the points [..., 2]."""
    sides = box_logits.float().reshape(*box_logits.shape[:-1], 4, box_logits.shape[-1] // 4)
    return boxes_from_bins(sides, anchor_points) * strides


def _num_kept(points: Tensor, candidates: int) -> int:
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return points[:candidates].shape[0]  # there, a length is a tensor, which sym_min does not take
    kept: int = torch.sym_min(candidates, points.shape[0])  # type: ignore[no-untyped-call]
    return kept


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows [B, K, D] that `index` [B, K] picks out of `values` [B, A, D], image by image."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
