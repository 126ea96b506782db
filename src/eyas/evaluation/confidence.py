"""Precision, recall and F1 as functions of the confidence threshold, and the threshold that serves best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eyas.data.index import DatasetIndex
from eyas.evaluation.matching import Matches
from eyas.evaluation.predictions import Predictions

Float64Array = npt.NDArray[np.float64]

THRESHOLDS = np.linspace(0.0, 1.0, 1001)


@dataclass(frozen=True)
class ConfidenceCurves:
    """What each confidence threshold gives, at one IoU; C classes, `THRESHOLDS` has T values.

    A class without truth has NaN everywhere, and precision is NaN where nothing passes the threshold.

    Attributes:
        precision, recall, f1: float64 [C, T].
        mean_f1: float64 [T], mean over the classes that have truth.
        best: the threshold with the best mean F1; the middle, where a range of thresholds is equally good; NaN when
            no detection is right at any threshold.
        class_best: float64 [C], the same for each class alone.
    """

    precision: Float64Array
    recall: Float64Array
    f1: Float64Array
    mean_f1: Float64Array
    best: float
    class_best: Float64Array

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Return precision, recall and F1 at `threshold`, each the mean over the classes where it is defined.

        NaN where it is for none, and for a threshold of NaN.
        """
        if math.isnan(threshold):
            return math.nan, math.nan, math.nan
        column = int(np.abs(THRESHOLDS - threshold).argmin())
        precision, recall, f1 = (_mean(curve[:, column]) for curve in (self.precision, self.recall, self.f1))
        return precision, recall, f1


def confidence_curves(index: DatasetIndex, predictions: Predictions, matches: Matches) -> ConfidenceCurves:
    """Return precision, recall and F1 of each class at each of `THRESHOLDS`.

    A prediction passes if its score is at least the threshold; those inside crowds don't count.
    """
    num_classes = len(index.classes)
    right = _passing(predictions, matches.truth >= 0, num_classes)
    counted = _passing(predictions, ~matches.ignored, num_classes)
    boxes = np.bincount(index.labels[~index.crowd], minlength=num_classes).astype(np.float64)
    boxes[boxes == 0] = np.nan
    with np.errstate(invalid="ignore"):
        precision = np.where(np.isnan(boxes)[:, None], np.nan, right / counted)
    recall = right / boxes[:, None]
    f1 = 2 * right / (counted + boxes[:, None])  # 2 TP / (2 TP + FP + FN)
    mean_f1 = np.asarray(f1[~np.isnan(boxes)].mean(axis=0))
    class_best = np.array([best_threshold(row) for row in f1])
    return ConfidenceCurves(precision, recall, f1, mean_f1, best_threshold(mean_f1), class_best)


def best_threshold(f1: Float64Array) -> float:
    """Return the threshold where `f1` [T] is greatest: the middle of the first range where it is; NaN if all is 0."""
    first = int(f1.argmax())
    if not f1[first] > 0:
        return float("nan")
    falls = np.flatnonzero(f1[first:] < f1[first] - 1e-12)
    last = first + int(falls[0]) - 1 if len(falls) else len(f1) - 1
    return round(float(THRESHOLDS[(first + last) // 2]), 3)


def _passing(predictions: Predictions, mask: npt.NDArray[np.bool_], num_classes: int) -> Float64Array:
    """Return float64 [C, T]: how many of the masked predictions of each class pass each threshold."""
    # A score lies in the bin of the highest threshold that it still passes; summing bins from the top counts all.
    bins = np.searchsorted(THRESHOLDS.astype(np.float32), predictions.scores[mask], side="right") - 1
    counts = np.zeros((num_classes, len(THRESHOLDS)))
    np.add.at(counts, (predictions.labels[mask], np.clip(bins, 0, None)), 1.0)
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1])


def _mean(values: Float64Array) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
