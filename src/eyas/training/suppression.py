"""Non-maximum suppression of whole batches on the device: the answer of `eyas.runtime.postprocess`, to the last bit.

On a GPU the overlaps of all pairs of candidates cost less than to sort out on the host which pairs are near.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eyas.types import Thresholds

_TOGETHER = 8  # images whose pairs are held at a time: 8 million of 1000 candidates each, 64 MB a tensor


class Survivors(NamedTuple):
    """The candidates of a batch, best first, and which of them live.

    Attributes:
        boxes: float32 [B, P, 4], xyxy network pixels.
        scores: float32 [B, P].
        labels: int64 [B, P].
        kept: bool [B, P].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor


def suppressed(boxes: Tensor, scores: Tensor, thresholds: Thresholds) -> Survivors:
    """Return the candidates of a batch and which of them pass, before `max_detections` cuts.

    Args:
        boxes: float32 [B, K, 4], xyxy network pixels.
        scores: float32 [B, K, C], in 0..1.
        thresholds: what passes; the suppression must be "class_wise" or "class_agnostic".
    """
    assert thresholds.suppression in ("class_wise", "class_agnostic")
    parts = [
        _suppressed(some, values, thresholds)
        for some, values in zip(torch.split(boxes, _TOGETHER), torch.split(scores, _TOGETHER), strict=True)
    ]
    return Survivors(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _suppressed(boxes: Tensor, scores: Tensor, thresholds: Thresholds) -> Survivors:
    num_classes = scores.shape[2]
    flat = scores.flatten(1)
    # One key a pair (box, class): its score, and of equal ones the lower index first. The bits of floats from 0 on are
    # in the order of their values, and no two keys are equal, so what `topk` picks does not depend on its whims.
    position = torch.arange(flat.shape[1], device=flat.device)
    keys = (flat.contiguous().view(torch.int32).long() << 32) + (flat.shape[1] - position)
    keys = torch.where(flat >= thresholds.confidence, keys, -1)
    keys, pairs = keys.topk(min(thresholds.candidates, flat.shape[1]), dim=1)
    anchors, labels = pairs // num_classes, pairs % num_classes
    found = boxes.gather(1, anchors.unsqueeze(-1).expand(-1, -1, 4))
    valid = (keys >= 0) & found.isfinite().all(-1)
    hits = _hits(torch.where(valid.unsqueeze(-1), found, 0.0), thresholds.iou)
    if thresholds.suppression == "class_wise":
        hits &= labels.unsqueeze(2) == labels.unsqueeze(1)
    hits &= valid.unsqueeze(2)
    return Survivors(found, flat.gather(1, pairs), labels, _alive(hits, valid))


def _hits(boxes: Tensor, iou: float) -> Tensor:
    """Return bool [B, P, P]: whether box i comes before box j and overlaps it by more than `iou`."""
    x0, y0, x1, y1 = boxes.double().unbind(-1)
    areas = (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)
    width = torch.minimum(x1.unsqueeze(2), x1.unsqueeze(1)) - torch.maximum(x0.unsqueeze(2), x0.unsqueeze(1))
    height = torch.minimum(y1.unsqueeze(2), y1.unsqueeze(1)) - torch.maximum(y0.unsqueeze(2), y0.unsqueeze(1))
    overlap = width.clamp(min=0) * height.clamp(min=0)
    return (overlap > iou * (areas.unsqueeze(2) + areas.unsqueeze(1) - overlap)).triu(1)


def _alive(hits: Tensor, valid: Tensor) -> Tensor:
    """Return bool [B, P]: which boxes live if each living one drops those that it hits.

    After n rounds the first n of any chain of hits are settled, so the rounds end when nothing changes any more.
    """
    alive = valid
    while True:
        settled = valid & ~(hits & alive.unsqueeze(2)).any(1)
        if torch.equal(settled, alive):
            return alive
        alive = settled
