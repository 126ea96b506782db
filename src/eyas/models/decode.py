"""From raw predictions to boxes and scores, and the module that is deployed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.models.output import HeadOutput
from eyas.types import InputSpec


def distances(box_logits: Tensor, reg_max: int) -> Tensor:
    """Return the expected distances to the left, top, right, bottom side in strides: [..., 4].

    Args:
        box_logits: [..., 4 * (reg_max + 1)], the bins of each side.
        reg_max: the last bin.
    """
    bins = torch.arange(reg_max + 1, dtype=torch.float32, device=box_logits.device)
    sides = box_logits.float().reshape(*box_logits.shape[:-1], 4, reg_max + 1)
    return torch.matmul(sides.softmax(-1), bins)


def boxes_from_distances(anchor_points: Tensor, strides: Tensor, distance: Tensor) -> Tensor:
    """Return xyxy boxes [..., 4] in network pixels.

    Args:
        anchor_points: [..., 2], (x, y) in strides.
        strides: [..., 1], pixels.
        distance: [..., 4], to the left, top, right, bottom side, in strides.
    """
    left_top, right_bottom = distance.chunk(2, -1)
    return torch.cat([anchor_points - left_top, anchor_points + right_bottom], -1) * strides


def decode_boxes(output: HeadOutput, reg_max: int) -> Tensor:
    """Return the box of every anchor: float32 [B, A, 4], xyxy in network pixels, not clipped."""
    return boxes_from_distances(output.anchor_points, output.strides, distances(output.box_logits, reg_max))


class Deployed(nn.Module):
    """The graph that is exported, and that validation and every session share: pictures in, candidates out.

    Args:
        net: a network that returns HeadOutput.
        input_spec: its `scale` is applied here.
        candidates: how many anchors to keep a picture.
    """

    def __init__(self, net: nn.Module, input_spec: InputSpec, candidates: int = 1000) -> None:
        super().__init__()
        self.net = net
        self.scale = input_spec.scale
        self.candidates = candidates

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the anchors with the best scores, best first.

        Args:
            images: uint8 [B, H, W, 3], RGB; H and W are multiples of 32.

        Returns:
            boxes float32 [B, K, 4], xyxy in network pixels, and scores float32 [B, K, C] in 0..1, with K the smaller
            of `candidates` and the number of anchors.
        """
        output: HeadOutput = self.net(images.permute(0, 3, 1, 2).float() * self.scale)
        kept = torch.sym_min(self.candidates, output.anchor_points.shape[0])  # type: ignore[no-untyped-call]
        reg_max = output.box_logits.shape[-1] // 4 - 1
        # Only what is kept is decoded: the softmax over the bins of all anchors would cost more than the selection.
        best = output.class_logits.amax(-1).topk(kept, dim=1).indices
        points, strides = output.anchor_points[best], output.strides[best]
        distance = distances(_rows(output.box_logits, best), reg_max)
        return boxes_from_distances(points, strides, distance), _rows(output.class_logits, best).sigmoid()


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows [B, K, D] that `index` [B, K] picks out of `values` [B, A, D], picture by picture."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
