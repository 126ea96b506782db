"""Which prediction found which object: COCO's greedy matching at one IoU, and what is counted from it.

Predictions of an image are taken best score first; each takes the object of its class that it overlaps most and that
no better prediction took. Dropping all predictions below a threshold therefore never changes the matches of the rest,
so one matching serves every confidence threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eyas.boxes import area, pairwise_iou
from eyas.data.index import DatasetIndex
from eyas.evaluation.predictions import Predictions
from eyas.types import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """What became of each of K predictions.

    Attributes:
        truth: int64 [K], the row of the dataset's `boxes` that the prediction found, -1 if none.
        ignored: bool [K], True where it found nothing but lies in a crowd of its class: neither right nor wrong.
        order: int64 [K], the rows by image and then by falling score (equal scores: the lower row first).
        iou: the least overlap of a match.
    """

    truth: IntArray
    ignored: BoolArray
    order: IntArray
    iou: float


def match_predictions(index: DatasetIndex, predictions: Predictions, iou: float = 0.5) -> Matches:
    """Return which object each prediction found; prediction and object have the same class and overlap by `iou`."""
    order = np.lexsort((-predictions.scores, predictions.images))
    truth = np.full(len(predictions), -1, np.int64)
    ignored = np.zeros(len(predictions), bool)
    for image, rows in _by_image(predictions, order):
        boxes, labels, crowd = index.truth(image)
        found = predictions[rows]
        same = found.labels[:, None] == labels[None, :]
        overlap = np.where(same & ~crowd, pairwise_iou(found.boxes, boxes), 0.0)
        picked = greedy_match(overlap, iou)
        truth[rows] = np.where(picked >= 0, picked + index.offsets[image], -1)
        if crowd.any():
            inside = (_covered(found.boxes, boxes) >= iou) & same & crowd
            ignored[rows] = (picked < 0) & inside.any(axis=1)
    return Matches(truth, ignored, order, iou)


def greedy_match(overlap: npt.NDArray[np.floating], least: float) -> IntArray:
    """Return int64 [K]: for each row of `overlap` [K, M], in order, the free column with the most overlap, or -1."""
    picked = np.full(len(overlap), -1, np.int64)
    if not overlap.size:
        return picked
    free = np.where(overlap >= least, overlap, -1.0)
    for row in np.flatnonzero((free >= 0).any(axis=1)):
        column = int(free[row].argmax())
        if free[row, column] >= 0:
            picked[row] = column
            free[:, column] = -1.0
    return picked


def confusion_matrix(
    index: DatasetIndex, predictions: Predictions, matches: Matches, confidence: float = 0.25
) -> npt.NDArray[np.int64]:
    """Count what each object was taken for.

    Objects found under their own class stand on the diagonal; what is left of both sides is then matched whatever
    the class. Crowds, and predictions inside them, are not counted.

    Args:
        index: the truth, C classes.
        predictions: what was found.
        matches: `match_predictions` of the two.
        confidence: only predictions with at least this score count.

    Returns:
        int64 [C + 1, C + 1], rows the true class and columns the predicted one; row C are predictions where nothing
        is, column C objects that were missed.
    """
    num_classes = len(index.classes)
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    kept = predictions.scores >= confidence
    right = kept & (matches.truth >= 0)
    np.add.at(matrix, (predictions.labels[right], predictions.labels[right]), 1)
    missed = ~index.crowd
    missed[matches.truth[right]] = False
    wrong = kept & ~right & ~matches.ignored
    taken_for = _confused(index, predictions, matches, missed, wrong)
    confused = taken_for >= 0
    np.add.at(matrix, (index.labels[taken_for[confused]], predictions.labels[confused]), 1)
    missed[taken_for[confused]] = False
    matrix[num_classes, :-1] = np.bincount(predictions.labels[wrong & ~confused], minlength=num_classes)
    matrix[:-1, num_classes] = np.bincount(index.labels[missed], minlength=num_classes)
    return matrix


def errors_per_image(
    index: DatasetIndex, predictions: Predictions, matches: Matches, confidence: float = 0.25
) -> tuple[IntArray, IntArray]:
    """Return (missed objects, false predictions) of each image, int64 [N] each; an object found under a wrong class
    counts in both."""
    kept = predictions.scores >= confidence
    right = kept & (matches.truth >= 0)
    missed = ~index.crowd
    missed[matches.truth[right]] = False
    false = kept & ~right & ~matches.ignored
    return (
        np.bincount(index.image_of_row()[missed], minlength=len(index)).astype(np.int64),
        np.bincount(predictions.images[false], minlength=len(index)).astype(np.int64),
    )


def _by_image(predictions: Predictions, order: IntArray) -> list[tuple[int, IntArray]]:
    """Return (image, rows) for each image with predictions; `order` has the rows of an image side by side."""
    images = predictions.images[order]
    found, starts = np.unique(images, return_index=True)
    return list(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else []


def _covered(boxes: FloatArray, crowds: FloatArray) -> FloatArray:
    """Return how much of each box [K, 4] each crowd [M, 4] covers: [K, M], COCO's overlap with a crowd."""
    top_left = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    size = np.maximum(bottom_right - top_left, 0)
    return np.asarray(size[..., 0] * size[..., 1] / np.maximum(area(boxes)[:, None], 1e-9), dtype=np.float32)


def _confused(
    index: DatasetIndex, predictions: Predictions, matches: Matches, missed: BoolArray, wrong: BoolArray
) -> IntArray:
    """Return int64 [K]: the missed object of another class that each wrong prediction lies on, or -1."""
    taken_for = np.full(len(predictions), -1, np.int64)
    for image, rows in _by_image(predictions, matches.order[wrong[matches.order]]):
        objects = np.arange(index.offsets[image], index.offsets[image + 1])
        objects = objects[missed[objects]]
        picked = greedy_match(pairwise_iou(predictions.boxes[rows], index.boxes[objects]), matches.iou)
        taken_for[rows[picked >= 0]] = objects[picked[picked >= 0]]
    return taken_for
