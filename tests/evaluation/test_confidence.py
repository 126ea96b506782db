"""Precision, recall and F1 by confidence threshold, by hand; charts of few and many classes."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.evaluation.cases import found_of, random_case, truth_of

from eyas.evaluation.charts import plot_f1, plot_per_class, plot_precision_recall, plot_sizes
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.confidence import THRESHOLDS, ConfidenceCurves, best_threshold, confidence_curves
from eyas.evaluation.confusion_chart import MAX_CLASSES, plot_confusion, shown_rows
from eyas.evaluation.matching import confusion_matrix, match_predictions
from eyas.evaluation.predictions import Predictions

A = (0.0, 0.0, 100.0, 100.0)
B = (300.0, 300.0, 400.0, 400.0)
C = (500.0, 100.0, 600.0, 200.0)


def curves_of(truth: list, found: list, classes: tuple[str, ...] = ("cat", "dog")) -> ConfidenceCurves:
    index, predictions = truth_of(truth, 2, classes), found_of(found)
    return confidence_curves(index, predictions, match_predictions(index, predictions))


def test_curve_by_hand() -> None:
    curves = curves_of(
        [(0, 0, A), (0, 0, B), (1, 0, A)], [(0, 0, A, 0.9), (0, 0, C, 0.7), (0, 0, B, 0.5), (1, 0, B, 0.2)]
    )
    at = {round(t, 3): i for i, t in enumerate(THRESHOLDS.tolist())}
    # threshold: true positives, predictions that pass; 3 objects
    for threshold, right, passing in ((0.1, 2, 4), (0.2, 2, 4), (0.3, 2, 3), (0.5, 2, 3), (0.6, 1, 2), (0.8, 1, 1)):
        column = at[threshold]
        assert curves.precision[0, column] == pytest.approx(right / passing)
        assert curves.recall[0, column] == pytest.approx(right / 3)
        assert curves.f1[0, column] == pytest.approx(2 * right / (passing + 3))
    beyond = at[0.95]
    assert math.isnan(curves.precision[0, beyond]) and curves.recall[0, beyond] == 0 and curves.f1[0, beyond] == 0
    assert np.isnan(curves.f1[1]).all() and math.isnan(curves.class_best[1])  # the second class has no truth
    assert np.array_equal(curves.mean_f1, curves.f1[0])
    # F1 is 2/3 from just above 0.2 to 0.5, its best; 4/7 below, 2/5 and 1/2 above.
    assert curves.best == pytest.approx(0.35, abs=0.001) == curves.class_best[0]
    assert curves.at(curves.best) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_mean_is_over_classes_with_truth() -> None:
    curves = curves_of([(0, 0, A), (0, 1, B)], [(0, 0, A, 0.8), (0, 2, C, 0.8)], classes=("cat", "dog", "bird"))
    assert curves.mean_f1[500] == pytest.approx((1.0 + 0.0) / 2)
    assert curves.class_best[0] == pytest.approx(0.4)  # 0 to 0.8 are equally good


def test_best_threshold_is_the_middle_of_the_best_range() -> None:
    f1 = np.zeros(1001)
    f1[200:401] = 0.8
    f1[700] = 0.8  # as good, but a single lucky point
    assert best_threshold(f1) == pytest.approx(0.3)
    f1[700] = 0.9
    assert best_threshold(f1) == pytest.approx(0.7)
    assert best_threshold(np.ones(1001)) == pytest.approx(0.5)
    assert math.isnan(best_threshold(np.zeros(1001)))  # nothing is right anywhere: no threshold is best


def test_crowded_predictions_do_not_cost_precision() -> None:
    index = truth_of([(0, 0, A), (0, 0, (200.0, 200.0, 640.0, 480.0))], 1, crowd=[False, True])
    found = found_of([(0, 0, A, 0.6), (0, 0, B, 0.9)])
    curves = confidence_curves(index, found, match_predictions(index, found))
    assert curves.precision[0, 500] == 1.0 and curves.recall[0, 500] == 1.0


def test_passing_means_at_least_the_threshold() -> None:
    index, found = random_case(2)
    matches = match_predictions(index, found)
    curves = confidence_curves(index, found, matches)
    boxes = np.bincount(index.labels[~index.crowd], minlength=len(index.classes))
    for column in (0, 10, 250, 500, 990):  # the scores have two digits, so they stand on thresholds
        passing = (found.scores >= np.float32(THRESHOLDS[column])) & ~matches.ignored
        for label in (0, 2, 3):
            mine = passing & (found.labels == label)
            right = (matches.truth[mine] >= 0).sum()
            assert curves.recall[label, column] == right / boxes[label]
            assert curves.f1[label, column] == pytest.approx(2 * right / (mine.sum() + boxes[label]))


def test_no_predictions() -> None:
    index = truth_of([(0, 0, A)], 1)
    curves = confidence_curves(index, Predictions.empty(), match_predictions(index, Predictions.empty()))
    assert curves.mean_f1.max() == 0.0 and curves.at(0.25)[1:] == (0.0, 0.0) and math.isnan(curves.at(0.25)[0])
    assert math.isnan(curves.best) and all(map(math.isnan, curves.at(curves.best)))


def size_of(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path))
    assert image.std() > 5
    return image.shape[0], image.shape[1]


@pytest.mark.parametrize("classes", [3, 90])
def test_charts_of_few_and_many_classes(classes: int, tmp_path: Path) -> None:
    index, found = random_case(0, images=60 if classes == 3 else 300, classes=classes)
    result, matches = evaluate_predictions(index, found), match_predictions(index, found)
    curves = confidence_curves(index, found, matches)
    plot_precision_recall(result, tmp_path / "pr.png")
    plot_f1(result, curves, tmp_path / "f1.png")
    plot_per_class(result, tmp_path / "classes.png")
    plot_sizes(result, tmp_path / "sizes.png")
    plot_confusion(confusion_matrix(index, found, matches), index.classes, 0.25, tmp_path / "confusion.png")
    for name in ("pr", "f1", "sizes"):
        assert max(size_of(tmp_path / f"{name}.png")) < 1000
    height, width = size_of(tmp_path / "classes.png")
    assert width < 1000 and height < 2400
    height, width = size_of(tmp_path / "confusion.png")
    # A cell of at least 20 pixels can be read; more than 2,500 pixels can't be looked at.
    assert 20 * min(classes, MAX_CLASSES) < width < 2500 and height < 2500


def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    result = evaluate_predictions(*random_case(0))
    for name in ("first", "second"):
        plot_sizes(result, tmp_path / f"{name}.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_of_too_many_classes_those_with_the_most_errors_are_shown() -> None:
    matrix = np.diag(np.full(101, 50))
    matrix[7, 100] = 5  # missed
    matrix[100, 99] = 5  # false
    matrix[40, 41] = 5  # taken for its neighbour
    rows = shown_rows(matrix)
    assert len(rows) == MAX_CLASSES + 1 and rows[-1] == 100 and (np.diff(rows) > 0).all()
    assert {7, 40, 41, 99} <= set(rows.tolist())
    assert shown_rows(matrix[:4, :4]).tolist() == [0, 1, 2, 3]
