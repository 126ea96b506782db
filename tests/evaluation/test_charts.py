"""The charts of many classes: still one image of a sensible size, with what matters most in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.evaluation.cases import random_case

from eyas.evaluation.charts import plot_f1, plot_per_class, plot_precision_recall, plot_sizes
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.confidence import confidence_curves
from eyas.evaluation.confusion_chart import MAX_CLASSES, plot_confusion, shown_rows
from eyas.evaluation.matching import confusion_matrix, match_predictions


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
