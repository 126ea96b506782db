"""Non-maximum suppression in numpy: exact, and fast at the sizes that a thresholded image has (50 to 1000 boxes).

`benchmarks/nms.py` holds it against the alternatives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eyas.types import FloatArray, IntArray

Indices = npt.NDArray[np.intp]
Float64Array = npt.NDArray[np.float64]


def nms(boxes: FloatArray, scores: FloatArray, labels: IntArray, iou: float, max_detections: int) -> Indices:
    """Greedy class-wise non-maximum suppression; the same answer as `eyas.boxes.nms`, ties included.

    Args:
        boxes: float32 [N, 4], xyxy, finite.
        scores: float32 [N].
        labels: int64 [N]; only boxes of one label suppress each other (all zeros: class-agnostic).
        iou: a box that overlaps a better one by more than this is dropped.
        max_detections: how many survivors to return at most.

    Returns:
        Indices of the survivors, best score first (equal scores: the lower index first).
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) < 2:
        return order[:max_detections]
    sides = boxes[order].astype(np.float64).T
    better, worse = _near_pairs(sides, labels[order], iou)
    x0, y0, x1, y1 = sides
    areas = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    width = np.minimum(x1[better], x1[worse]) - np.maximum(x0[better], x0[worse])
    height = np.minimum(y1[better], y1[worse]) - np.maximum(y0[better], y0[worse])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    hit = np.flatnonzero(overlap > iou * (areas[better] + areas[worse] - overlap))
    hit = hit[np.argsort(better[hit])]
    dropped = bytearray(len(order))
    # In order of the better box: whether it lives is settled before it is asked.
    for strong, weak in zip(better[hit].tolist(), worse[hit].tolist(), strict=True):
        if not dropped[strong]:
            dropped[weak] = 1
    survivors = np.flatnonzero(np.frombuffer(dropped, np.uint8) == 0)
    return order[survivors[:max_detections]]


def _near_pairs(sides: Float64Array, labels: IntArray, iou: float) -> tuple[Indices, Indices]:
    """Return every pair (i, j), i < j, of one label whose IoU may exceed `iou`: a superset, found by a sweep.

    If the IoU of two boxes is above t, their common width is above t times either width; so their left sides lie
    less than (1 - t) times the width of the left one apart, and likewise their top sides. That leaves a few
    thousand of a thousand boxes' half million pairs.

    Args:
        sides: float64 [4, N]: x0, y0, x1, y1.
        labels: int64 [N].
        iou: the threshold t.
    """
    x0, y0, x1, y1 = sides
    num = len(x0)
    slack = 1e-3  # pixels: more than any rounding, so that no pair is missed
    span = float(x0.max() - x0.min()) + float(np.abs(x1 - x0).max()) + 1.0
    key = x0 + labels * span  # one sweep serves all classes: they lie beside each other
    by_left = np.argsort(key)
    sorted_key = key[by_left]
    reach = (1 - iou) * (x1 - x0)[by_left] + slack
    following = np.arange(1, num + 1)
    counts = np.maximum(np.searchsorted(sorted_key, sorted_key + reach, side="right") - following, 0)
    ends = np.cumsum(counts)
    first = np.repeat(np.arange(num), counts)
    second = np.arange(int(ends[-1])) - np.repeat(ends - counts - following, counts)
    top = y0[by_left]
    drop = (1 - iou) * (y1 - y0)[by_left] + slack
    lower = top[second] - top[first]
    near = np.flatnonzero((lower <= drop[first]) & (-lower <= drop[second]))
    left, right = by_left[first[near]], by_left[second[near]]
    return np.minimum(left, right), np.maximum(left, right)


def soft_nms(
    boxes: FloatArray, scores: FloatArray, labels: IntArray, sigma: float, confidence: float, max_detections: int
) -> tuple[Indices, FloatArray]:
    """Gaussian soft non-maximum suppression (Bodla et al., 2017), class-wise.

    The best box is taken; those of its class lose score by exp(-IoU² / sigma); and again with the best of the rest.
    One pass over all boxes a detection: about ten times the time of `nms`.

    Args:
        boxes: float32 [N, 4], xyxy, finite.
        scores: float32 [N].
        labels: int64 [N].
        sigma: how gentle the decay is.
        confidence: boxes whose score falls below this are dropped.
        max_detections: how many to return at most.

    Returns:
        Indices of the survivors, best lowered score first, and these scores (float32).
    """
    left = scores.astype(np.float64)
    x0, y0, x1, y1 = boxes.astype(np.float64).T.copy()
    areas = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    kept: list[int] = []
    values: list[float] = []
    while len(kept) < min(max_detections, len(scores)):
        best = int(left.argmax())
        if left[best] < confidence:
            break
        kept.append(best)
        values.append(float(left[best]))
        width = np.minimum(x1[best], x1) - np.maximum(x0[best], x0)
        height = np.minimum(y1[best], y1) - np.maximum(y0[best], y0)
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        ratio = overlap / np.maximum(areas[best] + areas - overlap, 1e-9)
        left *= np.where(labels == labels[best], np.exp(-(ratio**2) / sigma), 1.0)
        left[best] = -1.0
    return np.array(kept, np.intp), np.array(values, np.float32)
