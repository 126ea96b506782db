"""Greedy non-maximum suppression in its plainest form: what the one in `eyas.runtime.nms` is held against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eyas.types import FloatArray, IntArray


def nms(
    boxes: FloatArray, scores: FloatArray, labels: IntArray, iou: float, max_detections: int
) -> npt.NDArray[np.intp]:
    """Return the rows that class-wise suppression keeps.

    Args:
        boxes: float32 [N, 4], xyxy.
        scores: float32 [N].
        labels: int64 [N]; only boxes of one label suppress each other.
        iou: a box that overlaps a better one by more than this is dropped.
        max_detections: stop after this many survivors.

    Returns:
        Indices of the survivors, best score first (equal scores: the lower index first).
    """
    order = np.argsort(-scores, kind="stable")
    if not len(order):
        return order
    x0, y0, x1, y1 = boxes[order].astype(np.float64).T.copy()
    sorted_labels = labels[order]
    areas = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    alive = np.ones(len(order), dtype=bool)
    kept: list[int] = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == max_detections:
            break
        rest = slice(i + 1, None)
        width = np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest])
        height = np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        alive[rest] &= (overlap <= iou * (areas[i] + areas[rest] - overlap)) | (sorted_labels[rest] != sorted_labels[i])
    return order[kept]
