"""From the graph's candidate boxes and scores to detections in image pixels. Validation calls the same function."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eyas.boxes import clip
from eyas.letterbox import Placement, from_frame
from eyas.runtime.nms import nms, soft_nms
from eyas.types import Detections, FloatArray, IntArray, Thresholds


def select(
    boxes: FloatArray,
    scores: FloatArray,
    placement: Placement,
    height: int,
    width: int,
    classes: tuple[str, ...],
    thresholds: Thresholds,
    only: IntArray | None = None,
) -> Detections:
    """Return the detections of one image: threshold, best candidates, suppression, back to image pixels.

    Without suppression they are the best `max_detections` candidates, equal scores in index order.

    A box may be several detections, one for each class whose score passes, as in YOLO-NAS's own post-processing.

    Args:
        boxes: float32 [K, 4], xyxy network pixels.
        scores: float32 [K, C], in 0..1.
        placement: where the image lies in the network's frame.
        height, width: the image's size in pixels.
        classes: the C class names.
        thresholds: what passes.
        only: int64, the labels wanted; None means all.
    """
    pairs = _candidates(scores, thresholds.confidence, thresholds.candidates, only)
    anchors, labels = np.divmod(pairs, scores.shape[1])
    found, values = boxes[anchors], scores.reshape(-1)[pairs]
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        found, values, labels = found[finite], values[finite], labels[finite]
    if thresholds.suppression == "soft":
        kept, values = soft_nms(
            found, values, labels, thresholds.soft_sigma, thresholds.confidence, thresholds.max_detections
        )
    elif thresholds.suppression == "none":
        kept = np.argsort(-values, kind="stable")[: thresholds.max_detections]
        values = values[kept]
    else:
        groups = labels if thresholds.suppression == "class_wise" else np.zeros_like(labels)
        kept = nms(found, values, groups, thresholds.iou, thresholds.max_detections)
        values = values[kept]
    return placed_back(found[kept], values, labels[kept], placement, height, width, classes)


def placed_back(
    boxes: FloatArray,
    scores: FloatArray,
    labels: IntArray,
    placement: Placement,
    height: int,
    width: int,
    classes: tuple[str, ...],
) -> Detections:
    """Return what was found in the network's frame as detections in the image; what lay in the padding is dropped.

    Args:
        boxes: float32 [M, 4], xyxy network pixels, the best first.
        scores: float32 [M].
        labels: int64 [M].
        placement: where the image lies in the network's frame.
        height, width: the image's size in pixels.
        classes: the class names.
    """
    inside = clip(from_frame(boxes, placement), height, width)
    visible = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    return Detections(inside[visible], scores[visible], labels[visible], classes, height, width)


def _candidates(scores: FloatArray, confidence: float, limit: int, only: IntArray | None) -> npt.NDArray[np.int64]:
    """Return the flat indices into [K, C] of the `limit` best scores >= `confidence`, in index order.

    Among equal scores at the limit the lower indices are taken, so that the answer never depends on a sort's whims.
    """
    flat = scores.reshape(-1)
    pairs: npt.NDArray[np.int64] = np.flatnonzero(flat >= confidence)
    if only is not None:
        pairs = pairs[np.isin(pairs % scores.shape[1], only)]
    if len(pairs) <= limit:
        return pairs
    values = flat[pairs]
    least = np.partition(values, len(values) - limit)[len(values) - limit]
    above = values > least
    ties = np.flatnonzero(values == least)[: limit - int(above.sum())]
    above[ties] = True
    chosen: npt.NDArray[np.int64] = pairs[above]
    return chosen
