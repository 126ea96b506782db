"""From raw predictions to boxes and scores, and the module that is deployed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.head_output import HeadOutput
from eyas.tensor_boxes import boxes_from_bins
from eyas.types import InputSpec


def decode_boxes(output: HeadOutput, reg_max: int) -> Tensor:
    """Return the box of every anchor: float32 [B, A, 4], xyxy in network pixels, not clipped.

    Args:
        output: what the network returned.
        reg_max: the last bin of its distances, in strides.
    """
    return _decode(output.box_logits, output.anchor_points, output.strides, reg_max)


def _decode(box_logits: Tensor, anchor_points: Tensor, strides: Tensor, reg_max: int) -> Tensor:
    """Return the boxes [..., 4] in network pixels of logits [..., 4 * (reg_max + 1)] at the points [..., 2]."""
    sides = box_logits.float().reshape(*box_logits.shape[:-1], 4, reg_max + 1)
    return boxes_from_bins(sides, anchor_points) * strides


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
        kept = _num_kept(output.anchor_points, self.candidates)
        reg_max = output.box_logits.shape[-1] // 4 - 1
        # Only what is kept is decoded: the softmax over the bins of all anchors would cost more than the selection.
        best = output.class_logits.amax(-1).topk(kept, dim=1).indices
        points, strides = output.anchor_points[best], output.strides[best]
        boxes = _decode(_rows(output.box_logits, best), points, strides, reg_max)
        return boxes, _rows(output.class_logits, best).sigmoid()


def _num_kept(points: Tensor, candidates: int) -> int:
    """Return the smaller of the number of points and `candidates`, without fixing the former in an exported graph."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return points[:candidates].shape[0]  # there, a length is a tensor, which sym_min does not take
    kept: int = torch.sym_min(candidates, points.shape[0])  # type: ignore[no-untyped-call]
    return kept


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows [B, K, D] that `index` [B, K] picks out of `values` [B, A, D], picture by picture."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
